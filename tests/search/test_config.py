"""A search as a YAML file: its defaults, and what is said of each mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwnas.search.config import SearchConfig, load_config, parse_config
from hwnas.spaces.errors import HwnasError, InvalidFileError, UnknownNameError
from hwnas.spaces.files import write_yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "scripts").glob("*.yaml"))
LEAST: dict[str, Any] = {"data": {"name": "digits"}, "objective": {"target_ratio": 0.5}}


def changed(section: str, **values: Any) -> dict[str, Any]:
    return LEAST | {section: LEAST.get(section, {}) | values}


def message(data: dict[str, Any]) -> str:
    with pytest.raises(HwnasError) as caught:
        parse_config(data, "search.yaml")
    return str(caught.value)


def test_data_and_a_target_are_enough() -> None:
    config = parse_config(LEAST)
    assert (config.space.name, config.space.joint) == ("mbconv", ("bits", "sparsity", "rank"))
    assert (config.device.name, config.controller.name) == ("this-machine", "evolution")
    assert (config.objective.metric, config.objective.form, config.objective.constraints) == ("latency_ms", "soft", {})
    assert (config.search.seed, config.search.minutes, config.search.early_stopping) == (0, None, True)
    assert config.final.candidates >= 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_survive_being_written_and_read(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    write_yaml(tmp_path / "config.yaml", config.model_dump(mode="json"))
    assert load_config(tmp_path / "config.yaml") == config


def test_there_are_examples() -> None:
    assert {"digits.yaml", "cifar10.yaml"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_say_what_they_contain(path: Path) -> None:
    """What an example sets is what comes out, key by key."""
    resolved = load_config(path).model_dump(mode="json")
    for section, values in yaml.safe_load(path.read_text()).items():
        for key, value in values.items():
            assert resolved[section][key] == value, f"{section}.{key}"


@pytest.mark.parametrize(
    ("data", "wrong", "nearest"),
    [
        (LEAST | {"contoller": {}}, "contoller", "controller"),
        (changed("search", trails=3), "trails", "trials"),
        (changed("training", lerning_rate=0.1), "lerning_rate", "learning_rate"),
        (changed("objective", constraint_ratio={}), "constraint_ratio", "constraint_ratios"),
        (changed("final", epoch=3), "epoch", "epochs"),
        (changed("device", register_second=3), "register_second", "register_seconds"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(data: dict[str, Any], wrong: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"key in search.yaml: '{wrong}'; did you mean '{nearest}'"):
        parse_config(data, "search.yaml")


def test_a_key_unlike_any_other_lists_those_of_its_own_section() -> None:
    text = message(changed("controller", zzz=1))
    assert "(known: name, options)" in text
    listed = set(re.findall(r"known: (.*)\)", message(changed("search", zzz=1)))[0].split(", "))
    assert listed == {"trials", "minutes", "workers", "early_stopping", "seed", "resources"}
    assert "trials" not in message(LEAST | {"zzz": 1})


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (changed("search", trials="many"), "search.trials"),
        (changed("search", trials=0), "search.trials"),
        (changed("search", trials=2.5), "search.trials"),
        (changed("search", seed=-1), "search.seed"),
        (changed("search", minutes=-1), "search.minutes"),
        (changed("search", workers=[2]), "search.workers"),
        (changed("search", resources={"gpus": 1}), "search.resources"),
        (changed("search", resources={"cpu": 0}), "search.resources.cpu"),
        (changed("search", resources={"gpu": 1.5}), "search.resources"),
        (changed("search", resources={"device:": 1}), "search.resources"),
        (changed("training", optimizer="adam"), "training.optimizer"),
        (changed("training", batch_size=1), "training.batch_size"),
        (changed("training", label_smoothing=1.0), "training.label_smoothing"),
        (changed("training", learning_rate=float("nan")), "training.learning_rate"),
        (changed("data", validation=1.0), "data.validation"),
        (changed("data", test=0), "data.test"),
        (changed("space", joint=["bits", "ranks"]), "space.joint"),
        (changed("space", joint="bits"), "space.joint"),
        (changed("objective", metric="energy_j"), "objective.metric"),
        (changed("objective", constraints={"weight_bytes": 0}), "objective.constraints.weight_bytes"),
        (changed("objective", constraints={"weights": 5}), "objective.constraints.weights"),
        (changed("objective", form="medium"), "objective.form"),
        (LEAST | {"search": 3}, "search"),
        (LEAST | {"training": None}, "training"),
        ({"data": {"name": "digits"}}, "objective"),
        ({"objective": {"target": 1}}, "data"),
        (LEAST | {"data": {}}, "data.name"),
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_that_names_its_key(data: dict[str, Any], where: str) -> None:
    text = message(data)
    assert text.startswith(f"search.yaml: {where}")
    assert len(text.splitlines()) == 1
    assert len(text) > len(f"search.yaml: {where}: ")


def test_trials_are_measured_on_a_device_or_not() -> None:
    phone = {"objective": {"target": 1.0}, "device": {"name": "pi5"}}
    data = LEAST | {"device": {"name": "pi5", "measure_trials": True}, "also": {"phone": phone}}
    with pytest.raises(InvalidFileError, match="measure_trials of pi5 must be the same everywhere"):
        parse_config(data)
    assert parse_config(data | {"also": {"phone": phone | {"device": None}}}).part("phone").device.measure_trials


@pytest.mark.parametrize("objective", [{}, {"target": 1.0, "target_ratio": 0.5}])
def test_there_is_one_target(objective: dict[str, Any]) -> None:
    with pytest.raises(InvalidFileError, match="objective: give either target or target_ratio"):
        parse_config(LEAST | {"objective": objective})


def test_a_target_may_have_a_unit_or_be_a_share() -> None:
    assert parse_config(LEAST | {"objective": {"target": 1.5}}).objective.target == 1.5
    assert parse_config(LEAST | {"objective": {"target_ratio": 0.25}}).objective.target_ratio == 0.25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [digits", "is not valid YAML: .*line"),
        ("data:\n\tname: digits", "is not valid YAML: .*line 2"),
        ("- data", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("digits", "must hold keys and values"),
    ],
)
def test_malformed_yaml_is_an_error_of_one_line_that_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    with pytest.raises(InvalidFileError, match=said) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(f"data: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(InvalidFileError, match="is not valid YAML"):
        load_config(path)
    assert not (tmp_path / "made").exists()


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"there is no file .*search\.yaml"):
        load_config(tmp_path / "search.yaml")
    with pytest.raises(InvalidFileError, match="cannot be read"):
        load_config(tmp_path)


def test_a_trial_takes_one_processor_unless_it_says_otherwise() -> None:
    assert parse_config(LEAST).search.resources == {"cpu": 1.0}
    asked = parse_config(changed("search", resources={"gpu": 0.5, "device:pi5": 1})).search.resources
    assert asked == {"cpu": 1.0, "gpu": 0.5, "device:pi5": 1.0}
    assert parse_config(changed("search", resources={"cpu": 4})).search.resources == {"cpu": 4.0}


def test_a_configuration_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_config(LEAST).search = SearchConfig.model_fields["search"].default  # type: ignore[misc]
