"""The comparison of a conformance run with the list of expected cases."""

import json

from tests.conformance.check_expected import compare, main


def test_compare_names_broken_and_new_cases():
    results = {"layers/a": None, "layers/b": "a[0]: 1, want 2", "layers/c": None}
    broken, new = compare(results, {"layers/a", "layers/b", "layers/gone"})
    assert broken == {"layers/b": "a[0]: 1, want 2", "layers/gone": "not among the results"}
    assert new == ["layers/c"]


def test_update_adds_new_cases_and_keeps_the_old(tmp_path, capsys):
    results, expected = tmp_path / "out.json", tmp_path / "expected.txt"
    results.write_text(json.dumps({"layers/b": None, "layers/a": None}))
    expected.write_text("layers/b\n")
    assert main([str(results), "--expected", str(expected)]) == 0
    assert "newly passing: layers/a" in capsys.readouterr().out
    assert main([str(results), "--expected", str(expected), "--update"]) == 0
    assert expected.read_text() == "layers/a\nlayers/b\n"


def test_a_broken_case_is_an_error(tmp_path, capsys):
    results, expected = tmp_path / "out.json", tmp_path / "expected.txt"
    results.write_text(json.dumps({"layers/a": "shape (1,), want (2,)"}))
    expected.write_text("layers/a\n")
    assert main([str(results), "--expected", str(expected)]) == 1
    assert "FAIL layers/a: shape (1,), want (2,)" in capsys.readouterr().out
