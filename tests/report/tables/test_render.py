"""Five formats of one table, to the letter; text of users does nothing in any of them; LaTeX compiles."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mimbench.errors import InputError
from mimbench.report.records.frame import load_records
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.ranks import Rank
from mimbench.report.scores.statistics import Interval, Summary
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.layouts import layout_names, read_layout
from mimbench.report.tables.papers import build_layout_table, build_published_table
from mimbench.report.tables.render import FORMATS, render
from mimbench.report.tables.render.latex import escape_latex
from mimbench.report.tables.render.numbers import cell_text
from mimbench.report.tables.render.widths import wrap_head
from mimbench.report.tables.table import Cell, Column, Table
from mimbench.report.tables.values import (
    Difference,
    Mean,
    MeanAndDifference,
    MeanRank,
    PublishedAndDifference,
    PublishedNumber,
)
from mimbench.text import spreadsheet_text, visible

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
SMALL = Table(
    (Column("method"), Column("knn: top1", ("mean", "sd", "n"), ("protocol a",)), Column("AP", ("mean", "sd", "n"))),
    (
        (Cell("a_b"), Cell(Mean(Summary(3, 60.0, 1.0)), "best", ("overlaps",)), Cell()),
        (Cell("c"), Cell(Mean(Summary(1, 50.0)), "second"), Cell(Mean(Summary(1, 7.5)))),
    ),
    "Title",
    ("{best} and {second}; in percent",),
)
GOLDEN = {
    "text": """\
Title

method  knn: top1 [a]     AP
------  ----------------  ---
a_b     *60.0 ± 1.0* [b]  -
c       _50.0_            7.5

*best* and _second_; in percent; n = 3 with ±, 1 without
[a] protocol a
[b] overlaps
""",
    "markdown": """\
**Title**

| method | knn: top1<sup>a</sup>      | AP  |
| ------ | -------------------------- | --- |
| a_b    | **60.0 ± 1.0**<sup>b</sup> | -   |
| c      | <ins>50.0</ins>            | 7.5 |

**best** and <ins>second</ins>; in percent; n = 3 with ±, 1 without<br>
<sup>a</sup> protocol a<br>
<sup>b</sup> overlaps
""",
    "csv": """\
method,knn: top1,knn: top1 sd,knn: top1 n,AP,AP sd,AP n
a_b,60.0,1.0,3,,,
c,50.0,,1,7.5,,1
""",
    "html": """\
STYLE<table class="mimbench">
<caption>Title</caption>
<thead><tr><th scope="col">method</th><th scope="col" class="number">knn: top1<sup>a</sup></th>\
<th scope="col" class="number">AP</th></tr></thead>
<tbody>
<tr><td>a_b</td><td class="number"><strong>60.0 &#177; 1.0</strong><sup>b</sup></td><td class="number">-</td></tr>
<tr><td>c</td><td class="number"><u>50.0</u></td><td class="number">7.5</td></tr>
</tbody>
<tfoot><tr><td colspan="3"><strong>best</strong> and <u>second</u>; in percent; n = 3 with &#177;, 1 without<br>\
<sup>a</sup> protocol a<br><sup>b</sup> overlaps</td></tr></tfoot>
</table>
""",
    "latex": r"""% needs \usepackage{booktabs,graphicx}
\begin{table}
\centering
\caption{Title}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{lrr}
\toprule
method & knn: top1\textsuperscript{a} & AP \\
\midrule
a\_b & \textbf{60.0 $\pm$ 1.0}\textsuperscript{b} & - \\
c & \underline{50.0}\phantom{ $\pm$ 0.0} & 7.5 \\
\bottomrule
\end{tabular}}

\smallskip
\begin{minipage}{\linewidth}
\footnotesize\raggedright
\textbf{best} and \underline{second}; in percent; n = 3 with $\pm$, 1 without \\
\textsuperscript{a} protocol a \\
\textsuperscript{b} overlaps
\end{minipage}
\end{table}
""",
}
NASTY = [
    "<script>alert(1)</script>",
    "a_b%c&d#e$f~g^h\\i{j}k",
    "[x]* | `y` \"z\" 'w'",
    "*[",
    "{best}{0}",
    "line\nbreak\x1b[31m\r",
    "中文 é ß ± −3 √2 🙂 ‘’ \u202e",
    "\\input{/etc/passwd}",
    "--- ``",
]


@pytest.mark.parametrize("format", FORMATS)
def test_to_the_letter(format):
    text = render(SMALL, format)
    if format == "html":
        style, table = text.split("</style>\n")
        text = "STYLE" + table
        assert style.startswith("<style>\ntable.mimbench {")
    assert text == GOLDEN[format]


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="unknown table format 'latx'; did you mean 'latex'"):
        render(SMALL, "latx")


def test_footnotes_beyond_z():
    cells = tuple((Cell(str(i), notes=(f"note {i}", "shared")),) for i in range(30))
    table = Table((Column("x"),), cells)
    assert table.letters(("note 0", "shared", "note 26", "shared")) == ["a", "b", "ab"]


def nasty_table() -> Table:
    rows = tuple((Cell(text, notes=(text,)), Cell(text, "best")) for text in NASTY)
    return Table((Column("label"), Column(NASTY[0], ("mean",), (NASTY[1],))), rows, NASTY[0], (NASTY[1], NASTY[4]))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_html_holds_no_element_of_a_users_making():
    page = render(nasty_table(), "html")
    assert page.isascii()
    parser = Tags()
    parser.feed(page)
    allowed = {"style", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "sup", "strong", "u", "br"}
    assert set(parser.tags) <= allowed
    assert NASTY[0] in parser.text


def test_markdown_keeps_its_columns_and_holds_no_element():
    lines = render(nasty_table(), "markdown").splitlines()
    body = [line for line in lines if line.startswith("| ")]
    assert len(body) == len(NASTY) + 2
    assert all(line.replace("\\|", "").count("|") == 3 for line in body)
    assert "<script" not in "\n".join(lines)


def test_text_holds_no_control_characters_and_one_line_a_row():
    text = render(nasty_table(), "text")
    assert {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf")} == {"\n"}
    assert not set(text) & {"\x1b", "\r", "\u202e"}
    assert len(text.splitlines()) == 2 + 2 + len(NASTY) + 1 + 2 + len(nasty_table().notes)


def test_csv_is_read_back_as_it_was():
    parsed = list(csv.reader(io.StringIO(render(nasty_table(), "csv"))))
    escaped = {NASTY[5]: "line\\nbreak\\u001b[31m\\r", NASTY[6]: NASTY[6].replace("\u202e", "\\u202e")}
    escaped[NASTY[8]] = f"'{NASTY[8]}"
    assert [row[0] for row in parsed[1:]] == [escaped.get(text, text) for text in NASTY]
    assert parsed[0] == ["label", NASTY[0]]


FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+SUM(1,2)",
    "@SUM(1)",
    "-2+3",
    "\tx",
    "\r=1+1",
    " =1+1",
    "-inf",
    "\uff1d1+1",
    "--x",
    "-",
]
PLAIN = ["-0.5", "+3", "-1e-3", "-.5", "3", "a=b", "mask_ratio=-1", ""]


def test_no_cell_of_a_csv_file_is_a_formula():
    assert [spreadsheet_text(text) for text in FORMULAS] == [f"'{visible(text)}" for text in FORMULAS]
    assert [spreadsheet_text(text) for text in PLAIN] == PLAIN
    # No number is text by its type; the format escapes it all the same.
    rows = tuple((Cell(text), Cell(PublishedAndDifference(-0.5, text))) for text in FORMULAS)
    table = Table((Column("=1"), Column("x", ("@a", "b"))), rows)
    parsed = list(csv.reader(io.StringIO(render(table, "csv"))))
    assert parsed[0] == ["'=1", "x", "x b"]
    for text, row in zip(FORMULAS, parsed[1:], strict=True):
        assert row == [f"'{visible(text)}", "-0.5", f"'{visible(text)}"]


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_holds_what_a_terminal_obeys(format):
    signs = "\x1b\x07\x00\x7f\x9b\u202e\u2066\u200f\u2028"
    rows = ((Cell(f"a{signs}b", notes=(f"c{signs}",)), Cell(f"d{signs}")),)
    table = Table((Column(f"f{signs}"), Column("g", (f"h{signs}",), main=f"i{signs}")), rows, signs, (signs,))
    assert not set(render(table, format)) & set(signs)


def test_what_latex_would_act_on_is_text():
    assert escape_latex("50% & a_b #1 $x {y} ~z ^w \\v") == (
        r"50\% \& a\_b \#1 \$x \{y\} \textasciitilde{}z \textasciicircum{}w \textbackslash{}v"
    )
    assert escape_latex("--rows 1–2") == r"-{}-rows 1\textendash{}2"
    assert escape_latex("[*]") == "{[}{*}{]}"
    assert escape_latex("é ± 中") == r"é $\pm$ \texttt{U+4E2D}"
    assert escape_latex("a\n\nb") == "a  b"


def test_csv_has_numbers_as_a_person_keeps_them():
    column = Column("x", ("mean",))
    values = [58.599999999999994, 1e-9 / 3, 12345678901234567890, 50.0, -0.30000000000000004, 2]
    table = Table((column,), tuple((Cell(PublishedNumber(value)),) for value in values))
    assert render(table, "csv").split()[1:] == [
        "58.6",
        "3.33333333333e-10",
        "12345678901234567890",
        "50.0",
        "-0.3",
        "2",
    ]


def mean(n: int, value: float) -> Mean:
    return Mean(Summary(n, value, 1.0 if n > 1 else None))


def test_latex_shows_n_once_if_it_is_the_same_everywhere():
    column = Column("top1", ("mean", "sd", "n", "difference"))
    three = (
        *(Cell(MeanAndDifference(Summary(3, 60.0, 1.0), 0.1)), Cell(mean(3, 50.0)), Cell()),
        Cell(Difference(Summary(3, 2.0, 1.0, Interval(-1.0, 5.0)))),
    )
    latex = render(Table((column,), tuple((cell,) for cell in three)), "latex")
    assert "(n=" not in latex
    assert "\nn = 3 throughout\n" in latex
    assert r"60.0 $\pm$ 1.0, +0.1 \\" in latex
    assert r"+2.0 {[}$-$1.0, 5.0{]} \\" in latex
    with_one_seed = render(Table((column,), ((three[0],), (Cell(mean(1, 50.0)),))), "latex")
    assert "(n=" not in with_one_seed
    assert "\nn = 3 with $\\pm$, 1 without\n" in with_one_seed
    assert "\nn = 1 throughout\n" in render(Table((column,), ((Cell(mean(1, 50.0)),),)), "latex")
    for other in (Cell(mean(2, 50.0)), Cell(Difference(Summary(1, 2.0)))):
        latex = render(Table((column,), ((three[0],), (other,))), "latex")
        assert "(n=3)" in latex
        assert "throughout" not in latex


def test_what_follows_a_caret_is_raised_in_each_format():
    table = Table((Column("AP^box", ("mean", "sd", "n")),), ((Cell(mean(3, 50.0)),),))
    assert "| AP<sup>box</sup>&thinsp; |" in render(table, "markdown")
    assert "AP<sup>box</sup>&thinsp;" in render(table, "html")
    assert r"AP\textsuperscript{box}\," in render(table, "latex")


def test_a_mean_of_one_seed_has_its_n_among_means_of_other_numbers():
    column = Column("top1", ("mean", "sd", "n"))
    text = render(Table((column,), tuple((Cell(mean(n, 50.0)),) for n in (1, 2, 3))), "text")
    assert text.count("50.0 (n=1)") == 1
    assert "(n=2)" in text
    assert "(n=3)" in text


def test_decimals_are_below_each_other_in_latex():
    column = Column("top1", ("mean", "sd", "n"))
    means = [Mean(Summary(3, 54.5, 10.1)), Mean(Summary(3, 7.5, 1.1)), Mean(Summary(1, 60.0))]
    latex = render(Table((column,), tuple((Cell(one),) for one in (*means, None))), "latex")
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")][1:5]
    assert rows == [
        r"54.5 $\pm$ 10.1 \\",
        r"7.5 $\pm$ \phantom{0}1.1 \\",
        r"60.0\phantom{ $\pm$ 00.0} \\",
        r"- \\",
    ]


def test_text_fits_the_terminal(monkeypatch):
    titles = ("method", "Linear probe top-1", "k-NN top-1 (k = 20)", "AP^box", "Corrupted top-1")
    columns = (Column(titles[0]), *(Column(title, ("mean", "sd", "n")) for title in titles[1:]))
    rows = tuple((Cell(name), *[Cell(mean(3, 50.0 + i)) for i in range(4)]) for name in ("random-init", "mae", "beit"))
    table = Table(columns, rows, controls=1, remarks=("a remark",))

    def text(width):
        monkeypatch.setenv("COLUMNS", str(width))
        return render(table, "text")

    wide = text(120).splitlines()
    assert wide[0].split("  ")[0] == "method"
    assert len(wide) == 8  # head, rule, three rows with the rule of the controls, an empty line, the remark
    wrapped = text(70).splitlines()
    assert max(map(len, wrapped)) <= 70
    assert [line.startswith("-----------") for line in wrapped[:4]] == [False, False, False, True]
    assert wrapped[0].strip() == "Linear"
    narrow = text(40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert narrow.count("random-init") > 1  # labels are in every part
    assert narrow.count("a remark") == 1
    for i in range(4):
        assert f"{50.0 + i:.1f}" in narrow


@pytest.mark.parametrize(
    ("content", "text", "numbers"),
    [
        (Mean(Summary(4, 59.84, 2.0)), "59.8 ± 2.0 (n=4)", (59.84, 2.0, 4)),
        (Mean(Summary(4, 59.84, 2.0), spread="se"), "59.8 ± 1.0 (n=4)", (59.84, 1.0, 4)),
        (Mean(Summary(3, -0.12345, 0.5), unit="nats"), "-0.123 ± 0.500 (n=3)", (-0.12345, 0.5, 3)),
        (Mean(Summary(1, 7.0)), "7.0 (n=1)", (7.0, None, 1)),
        (Mean(Summary(2, 123.456), is_in_range=False), "123.456", (123.456, None, 2)),
        (Difference(Summary(1, -2.0)), "−2.0 (n=1)", (-2.0, None, None, 1)),
        (Difference(Summary(3, 0.5, 1.0, Interval(-1, 2)), "nats"), "+0.500 [−1.000, 2.000] (n=3)", (0.5, -1, 2, 3)),
        (MeanRank(Rank("a", 2.5, 4, (1.0, 3.0))), "2.5 [1.0, 3.0]", (2.5, 1.0, 3.0)),
        (MeanRank(Rank("a", 2.5, 4, None)), "2.5", (2.5, None, None)),
        (PublishedNumber(83.8), "83.8", (83.8,)),
        (PublishedNumber(83.82), "83.82", (83.82,)),
        (PublishedNumber(2.8, "times"), "2.8×", (2.8,)),
        (PublishedAndDifference(83.8, -0.31), "83.8 (−0.3)", (83.8, -0.31)),
        (MeanAndDifference(Summary(3, 83.5, 0.1), -0.3), "83.5 ± 0.1 (n=3), −0.3", (83.5, 0.1, 3, -0.3)),
        (None, "-", None),
        ("a-b", "a-b", None),
    ],
)
def test_numbers_as_text(content, text, numbers):
    assert cell_text(Cell(content)) == text
    assert cell_text(Cell(content), shows_n=False) == text.replace(f" (n={getattr(content, 'n', None)})", "")
    assert getattr(content, "numbers", None) == numbers


TASKS = 14
WIDE = Table(
    (Column("method"), Column("how"), *(Column(f"task {index}: top1", ("mean",)) for index in range(TASKS))),
    tuple(
        (
            Cell("mae"),
            Cell(f"{row} fine-tuned as in a protocol of very/long/name_{'x' * 30}"),
            *[Cell(Mean(Summary(3, 59.8, 1.9)))] * TASKS,
        )
        for row in range(70)
    ),
    "Wide and long",
    ("{best}",),
)


def test_latex_splits_columns_that_do_not_fit_the_line():
    latex = render(WIDE, "latex")
    assert latex.startswith("% needs \\usepackage{array,booktabs,graphicx}\n")
    assert latex.count(r"59.8 $\pm$ 1.9") == 70 * TASKS
    assert "all rows: method: mae" in latex
    parts = latex.count(r"\begin{table}")
    assert parts > 1
    assert parts == latex.count(r"\begin{tabular}{>") == latex.count(r"\end{tabular}}") == latex.count(r"\end{table}")
    for part in range(1, parts + 1):
        assert latex.count(rf"\caption{{Wide and long (part {part} of {parts})}}") == 1
    assert latex.count(r"\begin{minipage}") == 1
    assert "(part" not in render(SMALL, "latex")


@pytest.mark.parametrize("table", [SMALL, WIDE])
def test_latex_leaves_pages_to_the_author(table):
    latex = render(table, "latex")
    assert not any(command in latex for command in (r"\clearpage", r"\newpage", r"\addtocounter", "longtable"))


def compiled(tables, folder, preamble=()) -> subprocess.CompletedProcess[str]:
    document = [r"\documentclass{article}", r"\usepackage{array,booktabs,graphicx}", *preamble]
    document += [r"\begin{document}", *(rf"{render(table, 'latex')}\clearpage" for table in tables), r"\end{document}"]
    (folder / "tables.tex").write_text("\n".join(document), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)


def lines_of(table):
    """Rows and footnotes."""
    notes = {note for part in (*table.columns, *(cell for row in table.rows for cell in row)) for note in part.notes}
    return len(table.rows) + len(notes)


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended"
)
def test_latex_compiles_and_fits_the_line(tmp_path, record, framed):
    records = [record(m, v + s, s) for m, v in (("random-init", 40), ("a_b&c", 50)) for s in (0, 1, 2)]
    choice = Choice(baseline=Baseline.parse("random-init"), published=True, ranks=True)
    reference = load_records(REFERENCE, earlier_epochs=True)
    reference = reference[reference["method"].isin(["random-init", "supervised", "simmim", "mae", "beit", "maskfeat"])]
    papers = [build_layout_table(read_layout(name)) for name in layout_names()]
    lists = [build_published_table(["simmim"], ["detection"]), build_published_table(["simmim"])]
    compared = [
        build_comparison(framed(records), choice),
        build_comparison(reference),
        build_comparison(reference, choice),
    ]
    tables = [SMALL, WIDE, nasty_table(), *compared, *lists, *papers]
    short = [table for table in tables if lines_of(table) <= 35]  # longer ones are the author's to place
    assert len(short) > len(papers)
    landscape = (r"\usepackage[landscape]{geometry}",)
    for chosen, preamble in ((tables, ()), (tables, landscape), (short, ())):
        done = compiled(chosen, tmp_path, preamble)
        assert done.returncode == 0, done.stdout[-2000:]
        log = (tmp_path / "tables.log").read_text(encoding="utf-8", errors="replace")
        assert "Overfull \\hbox" not in log
        if chosen is short:
            assert "Overfull \\vbox" not in log
            assert "Float too large" not in log
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
    assert compiled([Table((Column(r"\undefined"),), ())], tmp_path).returncode == 0


def test_heads_are_not_wrapped_at_no_break_spaces():
    assert wrap_head("k-NN top-1 (k\u00a0=\u00a020)", 8) == ["k-NN", "top-1", "(k\u00a0=\u00a020)"]
    assert wrap_head("method.mask_ratio", 8) == ["method.", "mask_ratio"]
