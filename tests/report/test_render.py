"""Five formats of one table, to the letter; text of users does nothing in any of them; LaTeX compiles."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser

import pytest

from mimbench.errors import InputError
from mimbench.report.comparison import comparison
from mimbench.report.grid import Choice
from mimbench.report.layouts import layout_names, read_layout
from mimbench.report.papers import layout_table, published_table
from mimbench.report.render import FORMATS, latex_escaped, render
from mimbench.report.table import Cell, Column, Table

SMALL = Table(
    (Column("method"), Column("knn: top1", ("mean", "sd", "n"), ("protocol a",)), Column("AP", ("mean", "sd", "n"))),
    (
        (Cell("a_b"), Cell("60.0 ± 1.0 (n=3)", (60.0, 1.0, 3), "best", ("overlaps",)), Cell()),
        (Cell("c"), Cell("50.0", (50.0, None, 1), "second"), Cell("7.5", (7.5, None, 1))),
    ),
    "Title",
    ("{best} and {second}; in percent",),
)
GOLDEN = {
    "text": """\
Title

method  knn: top1 [a]           AP
------  ----------------------  ---
a_b     *60.0 ± 1.0 (n=3)* [b]  -
c       _50.0_                  7.5

*best* and _second_; in percent
[a] protocol a
[b] overlaps
""",
    "markdown": """\
**Title**

| method | knn: top1<sup>a</sup>            | AP  |
| ------ | -------------------------------- | --- |
| a_b    | **60.0 ± 1.0 (n=3)**<sup>b</sup> | -   |
| c      | <ins>50.0</ins>                  | 7.5 |

**best** and <ins>second</ins>; in percent<br>
<sup>a</sup> protocol a<br>
<sup>b</sup> overlaps
""",
    "csv": """\
method,knn: top1,knn: top1 sd,knn: top1 n,AP,AP sd,AP n
a_b,60.0,1.0,3,,,
c,50.0,,1,7.5,,1
""",
    "html": """\
<table class="mimbench">
<caption>Title</caption>
<thead><tr><th scope="col">method</th><th scope="col">knn: top1<sup>a</sup></th><th scope="col">AP</th></tr></thead>
<tbody>
<tr><td>a_b</td><td class="number"><strong>60.0 &#177; 1.0 (n=3)</strong><sup>b</sup></td><td class="number">-</td></tr>
<tr><td>c</td><td class="number"><u>50.0</u></td><td class="number">7.5</td></tr>
</tbody>
<tfoot><tr><td colspan="3"><strong>best</strong> and <u>second</u>; in percent<br><sup>a</sup> protocol a<br>\
<sup>b</sup> overlaps</td></tr></tfoot>
</table>
""",
    "latex": r"""% needs \usepackage{booktabs}
\begin{table}
\centering
\caption{Title}
\begin{tabular}{lrr}
\toprule
method & knn: top1\textsuperscript{a} & AP \\
\midrule
a\_b & \textbf{60.0 $\pm$ 1.0 (n=3)}\textsuperscript{b} & - \\
c & \underline{50.0} & 7.5 \\
\bottomrule
\end{tabular}

\smallskip
\begin{minipage}{\linewidth}
\footnotesize\raggedright
\textbf{best} and \underline{second}; in percent \\
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
    assert render(SMALL, format) == GOLDEN[format]


def test_another_format_is_told():
    with pytest.raises(InputError, match="unknown table format 'latx'; did you mean 'latex'"):
        render(SMALL, "latx")


def test_footnotes_beyond_z():
    cells = tuple((Cell(str(i), notes=(f"note {i}", "shared")),) for i in range(30))
    table = Table((Column("x"),), cells)
    assert table.letters(("note 0", "shared", "note 26", "shared")) == ["a", "b", "ab"]


def nasty_table() -> Table:
    rows = tuple((Cell(text, notes=(text,)), Cell(text, (1.0,), "best")) for text in NASTY)
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
    allowed = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "sup", "strong", "u", "br"}
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
    assert {unicodedata.category(sign) for sign in text if not sign.isprintable()} == {"Cc"}
    assert not set(text) & {"\x1b", "\r", "\u202e"}
    assert len(text.splitlines()) == 2 + 2 + len(NASTY) + 1 + 2 + len(nasty_table().notes)


def test_csv_is_read_back_as_it_was():
    found = list(csv.reader(io.StringIO(render(nasty_table(), "csv"))))
    assert [row[0] for row in found[1:]] == NASTY
    assert found[0] == ["label", NASTY[0]]


def test_what_latex_would_act_on_is_text():
    assert latex_escaped("50% & a_b #1 $x {y} ~z ^w \\v") == (
        r"50\% \& a\_b \#1 \$x \{y\} \textasciitilde{}z \textasciicircum{}w \textbackslash{}v"
    )
    assert latex_escaped("[*]") == "{[}{*}{]}"
    assert latex_escaped("é ± 中") == r"é $\pm$ \texttt{U+4E2D}"
    assert latex_escaped("a\n\nb") == "a  b"


def compiled(tables, folder) -> subprocess.CompletedProcess[str]:
    document = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\usepackage[landscape]{geometry}"]
    document += [r"\begin{document}", *(rf"{render(table, 'latex')}\clearpage" for table in tables), r"\end{document}"]
    (folder / "tables.tex").write_text("\n".join(document), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended"
)
def test_latex_compiles(tmp_path, record, framed):
    records = [record(m, v + s, s) for m, v in (("random-init", 40), ("a_b&c", 50)) for s in (0, 1, 2)]
    choice = Choice(baseline="random-init", published=True, ranks=True)
    papers = [layout_table(read_layout(name)) for name in layout_names()]
    tables = [SMALL, nasty_table(), comparison(framed(records), choice), published_table(["simmim"]), *papers]
    done = compiled(tables, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
    assert compiled([Table((Column(r"\undefined"),), ())], tmp_path).returncode == 0
