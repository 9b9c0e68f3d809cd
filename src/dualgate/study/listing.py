"""What there is to run, for `dualgate study --list`."""

from dualgate.study.roster import GROUPS, all_methods


def list_methods() -> str:
    """Every method by group, one line each; a star marks those of a run that names none."""
    width = max(len(method.name) for method in all_methods())
    lines = []
    for group, words in GROUPS.items():
        members = [method for method in all_methods() if method.group == group]
        if members:
            lines += ["", f"{group}: {words}"]
            lines += [f"  {'*' if each.main else ' '} {each.name:{width}}  {each.description}" for each in members]
    return "\n".join([*lines[1:], "", "* runs where no methods are named; --full runs all."])
