"""The checksum of a file."""

from robustscanner_jax.checksum import file_sha256


def test_the_checksum_is_the_one_of_the_standard(tmp_path):
    """FIPS 180-4, of the message "abc"."""
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(str(tmp_path / "a")) == expected
