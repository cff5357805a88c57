import json
from pathlib import Path

import numpy as np
import pytest

from model_store.artifact import REQUIRED, Artifact, checksum, write_artifact
from model_store.attention import AttentionState
from model_store.errors import ArtifactError, DamagedArtifactError, FormatVersionError
from model_store.manifest import FORMAT_VERSION
from model_store.walks import WALK_VERSION
from tests.model_store.test_manifest import manifest
from tests.support.artifacts import World, publish_world

SMALL = World(n_users=6, n_items=8, n_interactions=20, width=4)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return publish_world(tmp_path, SMALL)


def some_arrays(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.arange(3, dtype=np.float32) for name in REQUIRED} | more


def test_every_array_comes_back_as_it_was_written_memory_mapped_and_read_only(tmp_path: Path) -> None:
    arrays = some_arrays(
        names=np.array(["a", "Ольга"]),
        nothing=np.zeros((0, 4), np.float32),
        fortran=np.asfortranarray(np.arange(6).reshape(2, 3)),
        number=np.array(7),
        swapped=np.arange(3, dtype=">i4"),
    )
    written = write_artifact(tmp_path, manifest(), arrays)
    opened = Artifact(tmp_path)
    assert opened.manifest == written
    assert set(opened.names()) == set(arrays)
    for name, array in arrays.items():
        found = opened.array(name)
        assert found.dtype == array.dtype
        assert np.array_equal(found.ravel(), array.ravel())
        with pytest.raises(ValueError, match="read-only"):
            found[...] = found
    assert "names" in opened
    assert "other" not in opened
    opened.verify()


def test_a_report_is_kept_beside_the_manifest_and_may_be_absent(tmp_path: Path) -> None:
    without, with_one = tmp_path / "without", tmp_path / "with"
    for directory, report in ((without, None), (with_one, {"selection": {"ndcg@20": 0.25}})):
        directory.mkdir()
        write_artifact(directory, manifest(), some_arrays(), report)
    assert Artifact(without).report() is None
    assert not (without / "report.json").exists()
    assert Artifact(with_one).report() == {"selection": {"ndcg@20": 0.25}}
    assert Artifact(with_one).manifest == Artifact(without).manifest
    Artifact(with_one).verify()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_report_is_damage_of_the_report_alone(tmp_path: Path, content: bytes) -> None:
    write_artifact(tmp_path, manifest(), some_arrays(), {"x": 1})
    (tmp_path / "report.json").write_bytes(content)
    opened = Artifact(tmp_path)  # it is served all the same
    with pytest.raises(DamagedArtifactError, match=r"report.json: .*Restore it or delete it"):
        opened.report()


def test_writing_without_a_required_array_or_with_python_objects_is_refused(tmp_path: Path) -> None:
    arrays = some_arrays()
    del arrays["form.alpha"]
    with pytest.raises(ArtifactError, match=r"form.alpha"):
        write_artifact(tmp_path, manifest(), arrays)
    with pytest.raises(ArtifactError, match="'objects' holds Python objects"):
        write_artifact(tmp_path, manifest(), some_arrays(objects=np.array([{}], dtype=object)))


def test_an_artifact_is_the_world_it_was_made_from(artifact: Artifact) -> None:
    graph, form = artifact.graph(), artifact.form()
    assert (graph.n_users, graph.n_items) == (6, 8)
    assert form.n_users == 6
    assert form.constant is not None
    assert artifact.item_item().n_rows == 8
    assert artifact.version == "v0001"
    rebuilt = AttentionState.build(graph, artifact.walks)
    assert np.array_equal(artifact.adjacency().similarity, rebuilt.to_arrays()["similarity.data"])
    nodes = np.arange(graph.n_nodes, dtype=np.int32)
    embeddings = form.embeddings(nodes, artifact.adjacency(), artifact.array("neighbor_embeddings"))
    assert embeddings[:6].tobytes() == artifact.array("user_embeddings").tobytes()
    assert embeddings[6:].tobytes() == artifact.array("item_embeddings").tobytes()


def test_c_and_b_may_be_absent(tmp_path: Path) -> None:
    plain = publish_world(tmp_path, World(n_users=6, n_items=8, with_constant=False, with_table=False))
    assert plain.form().constant is None
    assert plain.item_item().n_rows == 0


def test_an_array_that_is_not_there_is_an_error_with_its_name(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"no array 'codebook.image'"):
        artifact.array("codebook.image")


@pytest.mark.parametrize("name", ["form.base", "user_ids", "item_item.data"])
def test_a_truncated_array_is_found_on_opening(artifact: Artifact, name: str) -> None:
    path = artifact.directory / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedArtifactError, match=rf"{name}.npy: \d+ bytes instead of"):
        Artifact(artifact.directory)


def test_a_missing_file_is_found_on_opening_and_on_verifying(artifact: Artifact) -> None:
    (artifact.directory / "form.base.npy").unlink()
    with pytest.raises(DamagedArtifactError, match=r"form.base.npy: missing"):
        Artifact(artifact.directory)
    with pytest.raises(DamagedArtifactError, match=r"form.base.npy"):
        artifact.verify()
    with pytest.raises(DamagedArtifactError, match=r"form.base.npy"):
        artifact.array("form.base")


def test_a_flipped_bit_is_found_by_the_checksum(artifact: Artifact) -> None:
    path = artifact.directory / "item_embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    names: list[str] = []
    with pytest.raises(DamagedArtifactError, match=r"item_embeddings.npy: checksum"):
        Artifact(artifact.directory).verify(names.append)
    assert "item_embeddings" not in names
    assert names == sorted(names)  # those before it were whole


def test_any_damage_to_an_array_s_header_is_damage_and_nothing_else(artifact: Artifact) -> None:
    path = artifact.directory / "form.alpha.npy"
    whole = path.read_bytes()
    expected = artifact.array("form.alpha").copy()
    rng = np.random.default_rng(0)
    refused = 0
    for position in range(128):  # the header's 128 bytes, each of them
        content = bytearray(whole)
        content[position] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            found = Artifact(artifact.directory).array("form.alpha")
        except DamagedArtifactError:
            refused += 1
        else:
            assert np.array_equal(found, expected)  # a blank of the padding
    assert refused > 60


def test_an_archive_in_an_array_s_place_is_damage(artifact: Artifact) -> None:
    path = artifact.directory / "form.alpha.npy"
    path.write_bytes(b"PK\x03\x04".ljust(path.stat().st_size, b"\0"))
    with pytest.raises(DamagedArtifactError, match=r"form.alpha.npy"):
        Artifact(artifact.directory).array("form.alpha")


def test_a_file_of_another_type_or_shape_is_damage(artifact: Artifact) -> None:
    path = artifact.directory / "form.alpha.npy"
    alpha = artifact.array("form.alpha").copy()
    for other in (alpha.view(np.int32), alpha.T.copy()):
        np.save(path, other)
        with pytest.raises(DamagedArtifactError, match="the manifest says"):
            Artifact(artifact.directory).array("form.alpha")


def edit(artifact: Artifact, **fields: object) -> None:
    path = artifact.directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_newer_format_and_other_walks_are_refused(artifact: Artifact) -> None:
    edit(artifact, walk_version=WALK_VERSION + 1)
    with pytest.raises(ArtifactError, match=r"random walks are of version 2.*Train and publish"):
        Artifact(artifact.directory)
    edit(artifact, format_version=FORMAT_VERSION + 1)
    with pytest.raises(FormatVersionError, match="update kdiffe"):
        Artifact(artifact.directory)


@pytest.mark.parametrize(
    "walks",
    [
        {"n_walks": 12},
        {"n_walks": 0, "walk_length": 50, "restart_probability": 0.15, "seed": 0},
        {"n_walks": [], "walk_length": 50, "restart_probability": 0.15, "seed": 0},
        {"n_walks": 1e300, "walk_length": 50, "restart_probability": 0.15, "seed": 0},
    ],
)
def test_walks_that_cannot_be_walked_are_damage(artifact: Artifact, walks: dict[str, object]) -> None:
    edit(artifact, walks=walks)
    with pytest.raises(DamagedArtifactError, match="unusable walks"):
        Artifact(artifact.directory)


def test_a_manifest_that_lists_too_little_is_damage(artifact: Artifact) -> None:
    arrays = json.loads((artifact.directory / "manifest.json").read_text())["arrays"]
    del arrays["user_ids"]
    edit(artifact, arrays=arrays)
    with pytest.raises(DamagedArtifactError, match=r"\['user_ids'\] are not listed"):
        Artifact(artifact.directory)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"{"])
def test_a_manifest_that_is_not_json_is_damage(artifact: Artifact, content: bytes) -> None:
    (artifact.directory / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedArtifactError):
        Artifact(artifact.directory)


def test_a_directory_that_is_no_artifact_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedArtifactError, match=r"Is .* an artifact"):
        Artifact(tmp_path)


def test_a_checksum_is_that_of_the_command_line_tool(tmp_path: Path) -> None:
    # printf abc | sha256sum; the first example of FIPS 180-2, appendix B.
    (tmp_path / "abc").write_bytes(b"abc")
    assert checksum(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
