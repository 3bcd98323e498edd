from segbench.data.prepare.recipes import PARTS


def test_every_address_is_of_the_web_and_every_digest_well_formed():
    for part in (part for parts in PARTS.values() for part in parts.values()):
        for remote in part.remotes:
            assert all(url.startswith(("http://", "https://")) for url in remote.urls)
            if remote.digest:
                algorithm, digest = remote.digest.split(":")
                assert len(digest) == {"md5": 32, "sha256": 64}[algorithm] and int(digest, 16)
