"""The papers' tables and figures as experiments that anyone can run again.

>>> from shoal import papers
>>> papers.names()[0]
'rangamani2017/table1'
>>> experiment = papers.find("rangamani2017/table1")
>>> experiment.source
'Rangamani et al. 2017, Table 1'

>>> result = papers.reproduce("rangamani2017/table1", "smoke", h=64, p=0.3)
>>> result["verdicts"][0]["holds"]
True

``shoal reproduce NAME`` does the same on the command line. An experiment of your own is an
:class:`Experiment` that :func:`register` makes known, in a module that ``--plugin`` imports.
"""

from shoal import parts
from shoal.experiments import (
    SCALES,
    Experiment,
    Outcome,
    Progress,
    Table,
    check_result_folder,
    claim_result,
    configure,
    configure_all,
    find,
    names,
    perform,
    read_if_same,
    read_result,
    register,
    reproduce,
    select,
    write_page,
    write_result,
)
from shoal.experiments.registry import Later

__all__ = [
    "SCALES",
    "Experiment",
    "Outcome",
    "Progress",
    "Table",
    "check_result_folder",
    "claim_result",
    "configure",
    "configure_all",
    "find",
    "names",
    "perform",
    "read_if_same",
    "read_result",
    "register",
    "reproduce",
    "select",
    "write_page",
    "write_result",
]

# In the order of the page.
for _name in (
    "rangamani2017/table1",
    "rangamani2017/table2",
    "rangamani2017/figure1",
    "rangamani2017/theorem31",
    "rangamani2017/theorem32",
    "nguyen2019/figure1",
    "nguyen2019/figure2",
    "nguyen2019/theorem3",
    "nguyen2019/theorem4",
    "nguyen2019/gradients",
    "arpit2016/figure1",
    "arpit2016/figure2",
    "arpit2016/figure3",
    "arpit2016/figure4",
    "arpit2016/figure5",
    "beyond/basin",
    "beyond/penalties",
    "beyond/samples",
):
    parts.register("experiment", _name)(Later("shoal.papers." + _name.replace("/", ".")))
