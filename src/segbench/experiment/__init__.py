"""One experiment from config to scores: build, train, evaluate, predict, resume."""
