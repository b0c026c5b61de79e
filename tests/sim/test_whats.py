"""The documented table is the code's, and the example has every kind of term that its task can have."""

from pathlib import Path

from conformance import check_vec_env
from poise.sim.make import make
from poise.sim.randomization import Randomization
from poise.sim.whats import WHATS, WHEN

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "randomization" / "reach_fr3.json"


def test_the_documented_table_says_what_the_code_allows():
    page = (ROOT / "docs" / "randomization.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:7]] for line in page.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in WHATS}
    assert table == {
        name: [what.family, what.target or "–", what.unit, ", ".join(what.operations),
               "any" if what.when == WHEN else ", ".join(what.when)]
        for name, what in WHATS.items()
    }  # fmt: skip


def test_the_example_has_every_kind_of_term_but_looks_and_what_takes_an_object():
    whats = {term.what for term in Randomization.load(EXAMPLE).terms}
    of_objects = {"geom_size", "kick_velocity", "kick_spin"}
    assert whats == {n for n, what in WHATS.items() if what.family != "appearance"} - of_objects


def test_an_arm_with_every_kind_of_term_keeps_the_contract_of_a_vec_env():
    check_vec_env(lambda n: make("reach/fr3", n, randomize=str(EXAMPLE), threads=1), longest=104)
