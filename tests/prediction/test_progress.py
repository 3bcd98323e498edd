from importlib.metadata import version

from segbench.prediction.progress import LINE_SECONDS, Progress


def test_without_a_terminal_a_line_a_minute_tells_how_far_it_is(capfd):
    now = [0.0]
    with Progress(3, clock=lambda: now[0]) as progress:
        progress.begin("a", 100)
        progress.add(100)
        progress.end()
        progress.begin("b", 200)
        progress.add(20)
        now[0] = LINE_SECONDS
        progress.add(30)
        progress.add(10)
    out, err = capfd.readouterr()
    assert out == ""
    # Before 15 rich ends a line without a terminal twice.
    ends = 1 if int(version("rich").split(".")[0]) >= 15 else 2
    assert err == "b: 25%; input 2 of 3" + "\n" * ends
