"""The walk of one create stays one that a person can follow, and its page is true."""

from pathlib import Path

from tests.stories.walk import common, lines_run, modules, stops, walk

PAGE = Path(__file__).parents[2] / "docs" / "walks" / "create.md"
#: What it may be at most, in modules and lines of functions that run. To be lowered with each module that is folded,
#: never raised without a reason in the log.
MODULES, LINES = 105, 4_020


async def test_one_create_runs_through_few_modules_and_its_page_names_them(tmp_path):
    profiles = await walk(tmp_path)
    each = [{str(m) for m in modules(profile)} for profile in profiles]
    always, ever, named = set.intersection(*each), set.union(*each), stops(PAGE.read_text())
    how = "python -m tests.stories.walk > docs/walks/create.md"
    assert always <= named <= ever, (always - named, named - ever, how)

    # What runs each time: a slow machine also meets paths of those that wait, and they are not counted.
    each_time = common(profiles)
    ran = sum(lines_run(each_time, module) for module in modules(each_time))
    assert len(named) <= MODULES and ran <= LINES, (len(named), ran)
    # By way of a request, a task, the thread that writes, and a message to a host.
    assert {"compute/create.py", "conductor/build.py", "compute/states.py", "node/servers/builds.py"} <= always
