from speed import folder_scan


def test_every_kind_of_folder_is_scanned_beside_its_decoding(monkeypatch):
    monkeypatch.setattr(folder_scan, "_PAIRS", 2)
    monkeypatch.setattr(folder_scan, "_REPEATS", 1)
    rows = folder_scan.folder_scan()
    assert len(rows) == 3 and all(row.seconds > 0 and row.reference_seconds > 0 for row in rows)
    assert all("files/s" in row.note for row in rows)
