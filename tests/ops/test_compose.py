"""What docker-compose.yml and the Dockerfile name is there. No engine is asked: `make check` has their schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_store.command import SUBCOMMANDS
from service.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_there_are_two_services_a_trainer_and_a_state_that_is_on_disk() -> None:
    assert SERVICES["api"]["deploy"]["replicas"] == 2
    assert SERVICES["trainer"]["command"] == ["kdiffe", "trainer"]
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--appendfsync always" in command
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_and_is_told_nothing_from_outside_but_by_this_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service["read_only"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_and_fits(name: str) -> None:
    values = {key: value for key, value in OURS[name]["environment"].items() if key.startswith("KDIFFE_")}
    known = {f"KDIFFE_{field.upper()}" for field in Settings.model_fields}
    assert set(values) <= known
    # ${NAME:-default} and ${NAME:?message}
    plain = {key: re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value) for key, value in values.items()}
    plain = {key: "x" * 16 if value.startswith("${") else value for key, value in plain.items()}
    settings = Settings(**{key.removeprefix("KDIFFE_").lower(): value for key, value in plain.items()})
    assert settings.state == "redis://redis:6379/0"


def test_every_setting_of_the_image_is_one() -> None:
    named = set(re.findall(r"\b(KDIFFE_\w+)=", DOCKERFILE))
    assert named
    assert named <= {f"KDIFFE_{field.upper()}" for field in Settings.model_fields}


class Ready(BaseHTTPRequestHandler):
    """Ready, and nothing else."""

    def do_GET(self) -> None:
        """200 where readiness is asked for."""
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_image_s_health_check_asks_at_the_port_that_is_set() -> None:
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", DOCKERFILE, flags=re.MULTILINE)
    python, *words = json.loads(check)
    assert python == "python"

    def status(port: int) -> int:
        environment = {**os.environ, "KDIFFE_PORT": str(port)}
        return subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False).returncode

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert status(server.server_port) == 0
    assert status(server.server_port) == 1  # nobody is there any more


def test_every_command_exists() -> None:
    for service in OURS.values():
        words = [service.get("command", ["kdiffe", "serve"]), service["healthcheck"]["test"][1:]]
        assert all(command[1] in SUBCOMMANDS for command in words if command[0] == "kdiffe")
    assert re.findall(r'^CMD \["kdiffe", "(\w+)"\]', DOCKERFILE, flags=re.MULTILINE) == ["serve"]


def test_the_targets_are_stages_and_every_package_is_in_the_image() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, flags=re.MULTILINE))
    assert {service["build"]["target"] for service in OURS.values()} == {"service", "training"} <= stages
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages == set(re.findall(r"^COPY (\w+) \./\w+$", DOCKERFILE, flags=re.MULTILINE))
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in packages} <= set(allowed)


def test_no_volume_hides_a_package_and_every_file_that_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                assert (ROOT / source).is_dir(), volume
                assert volume.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]
            if name in OURS:
                assert target == "/data"


def test_prometheus_looks_for_a_service_that_is_there_and_finds_its_rules() -> None:
    settings = yaml.safe_load((ROOT / "ops" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (scraped,) = settings["scrape_configs"]
    assert scraped["dns_sd_configs"][0]["names"] == ["api"]
    assert str(scraped["dns_sd_configs"][0]["port"]) == SERVICES["api"]["ports"][0].rpartition(":")[2]
    for path in settings["rule_files"]:
        assert (ROOT / "ops" / "prometheus" / path.removeprefix("/etc/prometheus/")).is_file()
