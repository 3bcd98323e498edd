"""A run that W&B's agent resumes, and whose classes it may name."""

from segbench.cli import train


def test_an_agents_command_line_is_the_users_own():
    given = [
        "loss._target_=mine.Tversky",
        "++optimizer._target_='torch.optim.RAdam'",
        "model={'_target_': 'mine.Net', 'parts': [{'_target_': 'mine.Part'}]}",
        "augment.transforms=[{_target_:mine.Blur,p:1.0}]",
    ]
    (word,) = train._trusted_of_agent(given)
    key, _, names = word.partition("=")
    assert key == "trust"
    assert set(names.split(",")) >= {"mine.Tversky", "torch.optim.RAdam", "mine.Net", "mine.Part", "mine.Blur"}
    assert train._trusted_of_agent(["optimizer.lr=0.1"]) == []


def test_an_agent_resumes_a_run_of_the_users_own_classes(monkeypatch, tmp_path):
    (tmp_path / "wandb_id.txt").write_text("a\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "a")
    monkeypatch.setenv("SEGBENCH_OUTPUTS", str(tmp_path))
    resumed: list[list[str]] = []
    monkeypatch.setattr(train, "resume_run", resumed.append)
    monkeypatch.setattr("sys.argv", ["train", "--loss={'_target_': 'mine.Tversky', 'beta': 0.6}", "--seed=1"])
    train.main()
    assert resumed == [[f"resume={tmp_path}", "trust=mine.Tversky"]]
