from __future__ import annotations

import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import pytest

from training.configuration import override_values, read_settings, settings_from, shipped_configurations
from training.data.split import SplitSettings
from training.errors import ConfigurationError
from training.settings import TableSettings, TrainingSettings

SECTIONS = [(f.name, f.default_factory) for f in fields(TrainingSettings)]


def test_the_defaults_are_valid_and_are_what_nothing_given_gives() -> None:
    defaults = TrainingSettings()
    assert settings_from(asdict(defaults), "the defaults") == defaults
    assert read_settings(None) == defaults


@pytest.mark.parametrize(("name", "section"), SECTIONS, ids=[name for name, _ in SECTIONS])
def test_every_field_has_a_sentence(name: str, section: type) -> None:
    assert is_dataclass(section)
    for f in fields(section):
        if section is SplitSettings:  # it writes its sentences into its docstring
            found = re.search(rf"^\s+{f.name}: (.+)$", section.__doc__ or "", flags=re.MULTILINE)
            sentence = found[1] if found else ""
        else:
            sentence = f.metadata.get("description", "")
        assert len(sentence.split()) > 1, f"{name}.{f.name}: {sentence!r}"


@pytest.mark.parametrize("name", shipped_configurations())
def test_a_shipped_configuration_loads_by_its_name(name: str) -> None:
    assert isinstance(read_settings(name), TrainingSettings)


def test_values_of_a_file_and_of_overrides_stand_on_the_defaults_in_that_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nwidth = 16\nn_layers = 3\n[run]\nseed = 4\n")
    settings = read_settings(str(path), ["model.width=32", "loss.kind=softmax"])
    assert (settings.model.width, settings.model.n_layers, settings.run.seed) == (32, 3, 4)
    assert settings.loss.kind == "softmax"
    assert settings.optimiser == TrainingSettings().optimiser


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("model.width=7", "model", "width", 7),
        ("model.self_loops=true", "model", "self_loops", True),
        ("model.similarity_weight=1.5", "model", "similarity_weight", 1.5),
        ("optimiser.learning_rate=2e-3", "optimiser", "learning_rate", 0.002),
        ("model.readout=sum", "model", "readout", "sum"),
        ('model.readout="sum"', "model", "readout", "sum"),
        (" model.readout = sum ", "model", "readout", "sum"),
        ("item_item.weight=-1", "item_item", "weight", -1.0),
        ("split.strategy=leave_out", "split", "strategy", "leave_out"),
    ],
)
def test_an_override_is_written_as_toml_or_as_a_plain_word(
    override: str, section: str, key: str, value: object
) -> None:
    assert getattr(getattr(read_settings(None, [override]), section), key) == value


def test_overrides_leave_the_values_that_they_stand_on_as_they_were() -> None:
    values = {"model": {"width": 8}}
    assert override_values(values, ["model.width=9", "run.seed=1"]) == {"model": {"width": 9}, "run": {"seed": 1}}
    assert values == {"model": {"width": 8}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.widht=8", r"unknown key model\.widht\. Did you mean model\.width\?"),
        ("modle.width=8", r"unknown key modle\. Did you mean model\?"),
        ("model.zzz=8", r"unknown key model\.zzz\. There are: width, "),
        ("model.width=abc", r"model\.width = 'abc'"),
        ("model.width=1.5", r"model\.width = 1\.5"),
        ("model.width=", r"model\.width = ''"),
        ("model.readout=max", r"model\.readout = 'max'"),
        ("model.views=[knowledge, multimodal]", r'a list.* in quotes: model\.views=\["knowledge","multimodal"\] \('),
        ("model.views=knowledge", r'a list.* in quotes: model\.views=\["knowledge"\] \('),
        ("model.views=3", r"model\.views = 3"),
        ("model.width=0", r"model\.width = 0: .*greater than or equal to 1"),
        ("model.width=5000", r"model\.width = 5000: .*less than or equal to 4096"),
        ("walks.restart_probability=1.0", r"restart_probability = 1\.0: .*0\.999"),
        ("model.similarity_weight=nan", r"model\.similarity_weight = nan"),
        ("run.seed=-1", r"run\.seed = -1: .*greater than or equal to 0"),
        ("split.valid_share=1.5", r"valid_share is 1\.5"),
        ("model=8", "model is a section, not a value"),
        ("model.width.more=8", r"model\.width"),
        ("width", "expected section.key=value"),
        (".width=8", "expected section.key=value"),
        ("=8", "expected section.key=value"),
    ],
)
def test_a_wrong_override_is_refused_with_the_value_and_the_next_step(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_settings(None, [override])


@pytest.mark.parametrize("key", ["model.similarity_weight", "model.init_scale", "optimiser.learning_rate"])
def test_infinity_is_no_setting(key: str) -> None:
    with pytest.raises(ConfigurationError, match="must be finite"):
        read_settings(None, [f"{key}=inf"])


def test_bad_toml_names_the_file_and_the_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[model\nwidth = 8\n")
    with pytest.raises(ConfigurationError, match=r"bad\.toml: not TOML .*line 1"):
        read_settings(str(path))


def test_a_wrong_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text("[walks]\nn_walk = 3\n")
    with pytest.raises(ConfigurationError, match=r"odd\.toml: unknown key walks\.n_walk\. Did you mean walks\.n_walks"):
        read_settings(str(path))


def test_a_file_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no-such\.toml: can't be read") as error:
        read_settings("no-such.toml")
    assert all(name in str(error.value) for name in shipped_configurations())


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_settings(str(tmp_path / "b.toml"))


def test_the_tables_of_a_mean_are_read_and_a_misspelt_name_of_one_is_refused() -> None:
    found = settings_from({"item_item": {"mean_of": [{"l2": 50.0, "content": "features"}]}}, "a manifest")
    assert found.item_item.mean_of == (TableSettings(l2=50.0, content="features"),)
    with pytest.raises(ConfigurationError, match=r"a manifest: item_item\.mean_of\.0\.lambda"):
        settings_from({"item_item": {"mean_of": [{"lambda": 50.0}]}}, "a manifest")
    with pytest.raises(ConfigurationError, match=r"mean_of\.0\.weight = -2\.0: .*greater than or equal to 0"):
        settings_from({"item_item": {"mean_of": [{"weight": -2.0}]}}, "a manifest")
