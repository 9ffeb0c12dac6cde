"""Checksums of kept files: damage is found, and a writer that is killed leaves nothing that is taken for whole."""

import subprocess

import pytest

from scoresde.data import checksum


def save(content: bytes):
    return lambda file: file.write(content)


def test_what_is_written_is_whole(tmp_path):
    path = tmp_path / "a b.bin"
    for content in (b"one", b"", b"three" * 10**6):
        checksum.write(path, save(content))
        assert checksum.verify(path) is True and path.read_bytes() == content
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a b.bin", "a b.bin.sha256"]
    subprocess.run(["sha256sum", "--check", "--strict", "a b.bin.sha256"], cwd=tmp_path, check=True)
    checksum.remove(path)
    checksum.remove(path)
    assert not list(tmp_path.iterdir())


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.bin"
    checksum.write(path, save(b"content"))
    for target in (path, tmp_path / "a.bin.sha256"):
        whole = target.read_bytes()
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            target.write_bytes(changed)
            with pytest.raises(ValueError, match=r"its sha256 differs from a.bin.sha256"):
                checksum.verify(path)
        target.write_bytes(whole)
    assert checksum.verify(path)


def test_a_file_in_the_place_of_another_is_found(tmp_path):
    for name in ("a", "b"):
        checksum.write(tmp_path / name, save(name.encode()))
    for end in ("", ".sha256"):
        (tmp_path / f"a{end}").replace(tmp_path / f"b{end}")
    with pytest.raises(ValueError, match="its sha256 differs"):
        checksum.verify(tmp_path / "b")


def test_a_file_of_an_earlier_version_has_no_checksum(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert checksum.verify(tmp_path / "a") is False
    checksum.add(tmp_path / "a", checksum.sha256(tmp_path / "a"))
    assert checksum.verify(tmp_path / "a") is True
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        checksum.verify(tmp_path / "a")


def test_a_writer_that_ends_at_any_call_leaves_the_old_file_or_damage_that_is_found(tmp_path, monkeypatch):
    """A kill before each renaming; a full disk while the content is written."""

    class Killed(BaseException):
        pass

    replace, path = type(tmp_path).replace, tmp_path / "a"
    for calls in (0, 1, 2):
        for old in (None, b"old"):
            checksum.remove(path)
            if old:
                checksum.write(path, save(old))
            left = [calls]

            def killed(self, target, left=left):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return replace(self, target)

            with monkeypatch.context() as patch:
                patch.setattr(type(tmp_path), "replace", killed)
                if calls < 2:
                    with pytest.raises(Killed):
                        checksum.write(path, save(b"new"))
                else:
                    checksum.write(path, save(b"new"))
            if calls == 0:
                assert (path.read_bytes() if path.exists() else None) == old
            elif calls == 1 and old:
                with pytest.raises(ValueError):
                    checksum.verify(path)
            elif calls == 2:
                assert checksum.verify(path) and path.read_bytes() == b"new"
            else:
                assert not path.exists()

    def full(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    with pytest.raises(OSError, match="No space"):
        checksum.write(path, full)
    assert path.read_bytes() == before and checksum.verify(path)
