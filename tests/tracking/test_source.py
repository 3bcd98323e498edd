"""W&B's public API against a small GraphQL server on the loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import segbench.tracking.source as wandb_source
from segbench.compare.grouping import group_runs
from segbench.compare.pairwise import compare_groups
from segbench.compare.reading import read_run, read_runs
from segbench.errors import SegbenchError
from segbench.tracking.source import Address, parse, read_project


def node(name, config, summary, state="finished", group="sweep"):
    """A run as the server has it; W&B wraps every setting in a mapping with its value."""
    wrapped = {key: {"value": value, "desc": None} for key, value in config.items()} | {"_wandb": {"value": {}}}
    texts = ("description", "notes", "jobType", "commit", "sweepName", "historyKeys")
    return dict.fromkeys(texts) | {
        "projectId": "1",
        "id": f"internal-{name}",
        "name": name,
        "displayName": f"shown {name}",
        "tags": ["a"],
        "state": state,
        "config": json.dumps(wrapped),
        "group": group,
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00Z",
        "heartbeatAt": "2026-01-01T00:00:00Z",
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(summary),
        "historyLineCount": 3,
        "user": {"name": "u", "username": "u"},
    }


class Server(ThreadingHTTPServer):
    """Answers what the public API asks: who asks, and the runs of e/p, two a page."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs, self.asked = [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def data(self, query, variables):
        self.asked.append(variables)
        if "query Runs" in query:
            if (variables["entity"], variables["project"]) != ("e", "p"):
                return {"project": None}
            wanted = json.loads(variables["filters"])
            found = [run for run in self.runs if all(run.get(key) == value for key, value in wanted.items())]
            start = int(variables["cursor"] or 0)
            edges = [{"node": run, "cursor": str(start + n + 1)} for n, run in enumerate(found[start : start + 2])]
            page = {"endCursor": str(start + 2), "hasNextPage": start + 2 < len(found)}
            runs = {"edges": edges, "pageInfo": page}
            return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}
        if "query Run(" in query:
            found = [run for run in self.runs if run["name"] == variables["name"]]
            return {"project": {"internalId": "1", "run": found[0] if found else None}}
        return {"viewer": {"id": "v", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/graphql":
            # The client reports traces of its own.
            self.send_error(404)
            return
        asked = json.loads(body)
        answer = json.dumps({"data": self.server.data(asked["query"], asked.get("variables") or {})}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", served.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def config(seed, rate):
    return {"name": "tiny", "seed": seed, "optimizer": {"lr": rate}, "model": {"width": 4}}


@pytest.fixture
def sweep(server):
    for number in range(5):
        seed, rate = number % 2, [0.1, 0.1, 0.2, 0.2, 0.3][number]
        summary = {
            "test/mean_iu": 0.5 + number / 100,
            "val/mean_iu": 0.4,
            "train/loss": 1.0,
            "_step": 7,
            "_runtime": 9.5,
        }
        server.runs.append(node(f"run{number}", config(seed, rate), summary))
    server.runs[4]["state"] = "crashed"
    return server


class TestAddress:
    def test_a_project_a_run_and_a_filter(self):
        assert parse("e/p") == Address("e", "p", None, {})
        assert parse("e/p/abc") == Address("e", "p", "abc", {})
        assert parse("e/p?group=a%20b&state=finished").filters == {"group": "a b", "state": "finished"}

    @pytest.mark.parametrize("source", ["", "p", "e//x", "e/p/r/x", "e/p?colour=red", "e/p/r?group=a"])
    def test_what_is_none_is_told(self, source):
        with pytest.raises(
            SegbenchError, match=r"wandb:.*\n.*expected: wandb:ENTITY/PROJECT.*\n.*address of the project"
        ):
            parse(source)


class TestReadProject:
    def test_all_pages_with_config_and_summary(self, sweep):
        runs = read_project("e/p")
        assert [run.id for run in runs] == [f"run{number}" for number in range(5)]
        assert runs[1].config == config(1, 0.1)
        assert runs[1].summary["test/mean_iu"] == 0.51
        assert runs[1].address == "wandb:e/p/run1"
        assert (runs[4].state, runs[4].group) == ("crashed", "sweep")

    def test_the_server_filters(self, sweep):
        sweep.runs[2]["group"] = "other"
        assert [run.id for run in read_project("e/p?group=other")] == ["run2"]
        assert {"group": "other"} in [json.loads(asked.get("filters", "{}")) for asked in sweep.asked]

    def test_one_run(self, sweep):
        (run,) = read_project("e/p/run3")
        assert run.config["seed"] == 1

    def test_no_such_project(self, sweep):
        with pytest.raises(SegbenchError, match=r"wandb:e/none cannot be read: .*\n.*\n.*check the network"):
            read_project("e/none")

    def test_no_such_run(self, sweep):
        with pytest.raises(SegbenchError, match=r"wandb:e/p/none cannot be read"):
            read_project("e/p/none")

    def test_a_project_without_runs(self, sweep):
        with pytest.raises(SegbenchError, match=r"no run in wandb:e/p\?group=none\n.*a project with runs"):
            read_project("e/p?group=none")

    def test_no_network(self, server, monkeypatch):
        server.shutdown()
        server.server_close()
        monkeypatch.setattr(wandb_source, "TIMEOUT", 1)
        with pytest.raises(
            SegbenchError, match=r"wandb:e/p cannot be read: .*\n.*\n.*check the network.*run directories"
        ):
            read_project("e/p")

    def test_no_key(self, server, monkeypatch):
        monkeypatch.delenv("WANDB_API_KEY")
        with pytest.raises(SegbenchError, match=r"wandb:e/p cannot be read: .*\n.*a key.*\n.*WANDB_API_KEY"):
            read_project("e/p")


class TestComparison:
    def test_seeds_are_grouped_and_a_crashed_run_is_left_out(self, sweep):
        records, left = read_runs(["wandb:e/p"])
        table = group_runs(records, left)
        assert [group.label for group in table.groups] == ["lr=0.1", "lr=0.2"]
        assert [[run.seed for run in group.runs] for group in table.groups] == [[0, 1], [0, 1]]
        assert [(entry.source, entry.reason) for entry in table.left_out] == [("wandb:e/p/run4", "crashed in W&B")]
        (column,) = [column for column in table.columns if column.key == "test/mean_iu"]
        assert table.groups[1].summary(column).mean == pytest.approx(0.525)

    def test_losses_and_counters_are_no_scores_and_nan_is_one(self, sweep):
        sweep.runs[0] = node("run0", config(0, 0.1), {"test/mean_iu": "NaN", "train/loss": 1.0, "test/x": {"min": 1}})
        sweep.runs[1] = node("run1", config(1, 0.1), {"train/loss": 1.0, "_step": 3})
        records, left = read_runs(["wandb:e/p"])
        assert list(records[0].metrics) == ["test/mean_iu"]
        assert records[0].metrics["test/mean_iu"] != records[0].metrics["test/mean_iu"]
        assert left[0].reason.startswith("no score of a split")

    def test_a_run_of_a_part_of_its_split_is_left_out(self, sweep):
        part = {"test/mean_iu": 0.5, "partial/counted": 2.0, "partial/of": 231.0}
        sweep.runs[0] = node("run0", config(0, 0.1), part)
        _, left = read_runs(["wandb:e/p"])
        assert left[0].reason.startswith("partial: 2 of 231 images were counted")

    def test_validations_of_a_part_lend_no_score(self, sweep):
        part = {"val/mean_iu": 0.5, "partial_validation/counted": 2.0, "partial_validation/of": 9.0}
        sweep.runs[0] = node("run0", config(0, 0.1), part | {"test/mean_iu": 0.5})
        sweep.runs[1] = node("run1", config(1, 0.1), part)
        records, left = read_runs(["wandb:e/p"])
        assert list(records[0].metrics) == ["test/mean_iu"]
        assert left[0].reason.startswith("partial: 2 of 9 images were validated")

    def test_without_counts_there_is_a_table_and_no_test(self, sweep):
        comparison = compare_groups(group_runs(*read_runs(["wandb:e/p"])))
        assert comparison.pairs == ()
        assert not any(refusal.wrong for refusal in comparison.refusals)
        assert "read from W&B, which has no counts of images" in str(comparison.refusals[0].error)

    def test_a_run_that_is_here_too_is_read_here(self, sweep, tiny_run, tmp_path):
        import shutil

        here = shutil.copytree(tiny_run, tmp_path / "run")
        (here / "wandb_id.txt").write_text("run2\n")
        records, _ = read_runs(["wandb:e/p", str(here)])
        assert [record.source for record in records] == [
            str(here),
            "wandb:e/p/run0",
            "wandb:e/p/run1",
            "wandb:e/p/run3",
        ]

    def test_a_run_here_and_its_seeds_in_wandb_are_one_group(self, server, tiny_run):
        local = read_run(tiny_run)
        metrics = {"test/mean_iu": 0.123}
        # The server keeps numbers as JSON does: 1.0 comes back as 1.
        logged = json.loads(json.dumps(local.config | {"seed": 1}).replace("1.0", "1").replace("0.0,", "0,"))
        server.runs.append(node("other", logged, metrics))
        table = group_runs(*read_runs([str(tiny_run), "wandb:e/p"]))
        assert [[run.seed for run in group.runs] for group in table.groups] == [[0, 1]]
