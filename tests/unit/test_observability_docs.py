"""docs/observability.md says what there is: every metric, no other one, and alert rules that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from controller.cli.log import FORMATS, LEVELS
from controller.cli.measures import NODE_STATES, OUTCOMES, PHASES, Totals, families
from tests.unit.test_metrics import NOW, SIZE, a_pass, node_world

TEXT = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")


def test_every_metric_is_in_the_table_and_every_name_in_the_table_is_one() -> None:
    names = {family.name for family in families(a_pass(node_world({})), Totals(), SIZE, NOW, "0")}
    table = {
        name for line in TEXT.splitlines() if line.startswith("| `") for name in re.findall(r"`(sshoal_\w+)`", line)
    }
    assert table == names


def test_the_words_of_labels_and_options_are_there() -> None:
    assert all(word in TEXT for word in (*NODE_STATES, *OUTCOMES, *PHASES, *LEVELS, *FORMATS))


def test_alert_rules_are_yaml_and_ask_for_metrics_that_there_are() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    rules = yaml.safe_load(block)["groups"][0]["rules"]
    names = {family.name for family in families(a_pass(node_world({})), Totals(), SIZE, NOW, "0")}
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        used = set(re.findall(r"sshoal_\w+", rule["expr"]))
        assert used and used <= names
        assert rule["expr"].count("(") == rule["expr"].count(")") and rule["annotations"]["summary"]
