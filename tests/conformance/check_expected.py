"""Holds a conformance run's results against the cases that are expected to pass.

    python ../shared/conformance/run.py network updater run --json out.json
    python tests/conformance/check_expected.py out.json             exit code 1 if a case of expected.txt does not pass
    python tests/conformance/check_expected.py out.json --update    adds the newly passing cases to expected.txt

A case that passes without being on the list is reported, and is no error.
"""

import argparse
import json
import sys
from pathlib import Path

EXPECTED = Path(__file__).with_name("expected.txt")


def compare(results: dict[str, str | None], expected: set[str]) -> tuple[dict[str, str], list[str]]:
    """(expected cases that do not pass, each with its reason; passing cases that were not expected)."""
    broken = {name: results.get(name, "not among the results") for name in sorted(expected)}
    broken = {name: reason for name, reason in broken.items() if reason is not None}
    return broken, sorted(name for name, reason in results.items() if reason is None and name not in expected)


def main(argv: list[str] | None = None) -> int:
    """Prints what changed; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="file written by the runner's --json")
    parser.add_argument("--expected", type=Path, default=EXPECTED, help="one case name a line")
    parser.add_argument("--update", action="store_true", help="add newly passing cases to the list")
    args = parser.parse_args(argv)
    results = json.loads(args.results.read_text())
    expected = set(args.expected.read_text().split())
    broken, new = compare(results, expected)
    for name, reason in broken.items():
        print(f"FAIL {name}: {reason[:300]}")
    for name in new:
        print(f"newly passing: {name}")
    if new and args.update:
        args.expected.write_text("".join(f"{name}\n" for name in sorted(expected | set(new))))
    elif new:
        print(f"{args.expected.name} does not list these yet; add them with --update")
    passing = sum(reason is None for reason in results.values())
    print(f"{passing} of {len(results)} cases pass; of {len(expected)} expected {len(broken)} fail; {len(new)} new")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
