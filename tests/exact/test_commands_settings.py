"""`entroflow settings`: every setting, its default, what it may be, and what it is, on one line."""

import pytest

from entroflow.agents.settings import of_algorithm, values
from entroflow.cli import main
from entroflow.rl import ACTORS


@pytest.mark.parametrize("algorithm", list(ACTORS))
def test_every_setting_has_one_line(algorithm, capsys):
    """In the order of the settings; numbers, choices and classes say what is possible."""
    assert main(["settings", algorithm]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[4:] if line.strip()]
    expected = values(of_algorithm(algorithm))
    assert [line[0] for line in lines] == list(expected)
    told = {name: rest for name, _, rest in lines}
    assert all(line[1] == str(expected[line[0]]) for line in lines if isinstance(expected[line[0]], int | float | str))
    assert told["discount"].split("  ")[0] == "in [0, 1)" and "discount γ" in told["discount"]
    assert told["critic_ensemble"].startswith("mean or min ") and told["depth"].startswith("1 to 100 ")
    assert all(len(rest.split("  ")) > 1 and rest.rstrip().endswith(".") for rest in told.values())
