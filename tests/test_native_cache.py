"""The compiled layer operations in the cache: loaded only if this user built them and nobody has changed them since."""

import shutil
from pathlib import Path

import pytest
from tracereel.engine.layer_ops import native_ops

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A library in the cache's folder, built once for all tests."""
    folder = tmp_path_factory.mktemp("built")
    path, source = folder / "kernels" / "cpu-0.so", folder / "cpu.c"
    # Who may load a library does not depend on what is in it, and the operations take seconds to compile.
    source.write_text("int one(void) { return 1; }\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_ops, "SOURCE", source)
        native_ops._build(native_ops._compiler(), path)
    return path


@pytest.fixture
def library(built, tmp_path):
    return Path(shutil.copytree(built.parent, tmp_path / "kernels")) / built.name


def test_what_was_built_here_is_loaded_and_what_was_changed_is_not(library):
    assert native_ops._is_ours(library)
    whole = library.read_bytes()
    library.write_bytes(whole[:-1] + b"x")
    assert not native_ops._is_ours(library)
    library.write_bytes(whole)
    assert native_ops._is_ours(library)
    native_ops._digest_path(library).unlink()
    assert not native_ops._is_ours(library)


def test_what_others_may_write_is_not_loaded(library):
    for place, mode in ((library, 0o777), (library.parent, 0o777), (library, 0o775)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert not native_ops._is_ours(library)
        place.chmod(before)
    assert native_ops._is_ours(library)


def test_another_users_library_and_a_link_are_not_loaded(library, monkeypatch):
    elsewhere = library.with_name("elsewhere.so")
    library.rename(elsewhere)
    library.symlink_to(elsewhere)
    assert not native_ops._is_ours(library)
    library.unlink()
    elsewhere.rename(library)
    assert native_ops._is_ours(library)
    if library.stat().st_uid != 0:
        monkeypatch.setattr(native_ops.os, "geteuid", lambda: 12345)
        assert not native_ops._is_ours(library)
