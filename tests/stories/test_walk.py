"""The walk of one create stays one that a person can follow, and its page is true."""

from pathlib import Path

from tests.stories.walk import ROOT, TIMES, stops, walk

PAGE = Path(__file__).parents[2] / "docs" / "walks" / "create.md"
#: What it may be at most. To be lowered with each module that is folded, never raised without a reason in the log.
MODULES, LINES = 99, 15_000


async def test_one_create_runs_through_few_modules_and_its_page_names_them(tmp_path):
    named = stops(PAGE.read_text())
    lines = sum(len((ROOT / m).read_text().splitlines()) for m in named)
    assert len(named) <= MODULES and lines <= LINES, (len(named), lines)

    seen, idle = await walk(tmp_path)
    ran = {str(m) for m in seen | dict.fromkeys(idle)}
    always = {str(m) for m, n in seen.items() if n == TIMES and m not in idle}
    assert always <= named <= ran, (
        always - named, named - ran, "python -m tests.stories.walk > docs/walks/create.md")
