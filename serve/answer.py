"""The answer to a file: CSV as it was sent, with new columns, and safe to open in a spreadsheet."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.features import Contract
from serve.check import BLANKS, NUMBER
from serve.upload import Upload

# A spreadsheet takes a cell that begins so for a formula, and runs it. Source: OWASP, "CSV
# Injection"; the apostrophe is its advice, too.
FORMULA_STARTS = pa.array(["=", "+", "-", "@", "\t", "\r", "\n"])
FORMULA_BYTES = [start.encode() for start in FORMULA_STARTS.to_pylist()]
OUTPUTS = ("prediction", "lower", "upper")
ID = "prediction_id"  # of the row in the prediction log
ERROR = "error"
SIGNIFICANT_DIGITS = 6  # what the model computes with, float32, has seven


class Table:
    """A CSV in the form of an upload: its separator, line ends, mark of the encoding, header."""

    def __init__(self, upload: Upload, contract: Contract, with_ids: bool, with_errors: bool):
        self._upload = upload
        self._known = contract.spelling_to_name()
        self._added = [*OUTPUTS, *([ID] * with_ids), *([ERROR] * with_errors)]
        texts = {s for each in contract.features if each.categories for s in each.spellings}
        numbers = self._known.keys() - texts
        self._is_number = [name.strip() in numbers for name in upload.header]
        self._is_number += [name in OUTPUTS for name in self._added]
        self._may_need_quotes = [upload.has_quotes] * len(upload.header)
        self._may_need_quotes += [name == ERROR for name in self._added]

    def header(self) -> bytes:
        """Give the header as sent; a column named like a new one becomes input_..."""
        sent = self._upload.header
        names, taken = [], {*self._added, *(name.strip() for name in sent)}
        for name in sent:
            if name.strip() in self._added:
                name = _free_name(name.strip(), taken)
                taken.add(name)
            names.append(name if name.strip() in self._known else _escape_name(name))
        line = io.StringIO()
        writer = csv.writer(
            line, delimiter=self._upload.separator, lineterminator=self._upload.line_end
        )
        writer.writerow([*names, *self._added])
        return self._upload.bom + line.getvalue().encode()

    def rows(self, columns: list[pa.StringArray]) -> bytes:
        """Give rows of text cells as CSV, without formulas in columns that are no numbers."""
        cells = [
            _escape_formulas(each, is_number)
            for each, is_number in zip(columns, self._is_number, strict=True)
        ]
        cells = [self._quoted(each, place) for place, each in enumerate(cells)]
        lines = pc.binary_join_element_wise(*cells, self._upload.separator)
        all_lines = pa.ListArray.from_arrays([0, len(lines)], lines)
        text = pc.binary_join(all_lines, self._upload.line_end)[0]
        return text.as_buffer().to_pybytes() + self._upload.line_end.encode()

    def _quoted(self, cells: pa.StringArray, place: int) -> pa.StringArray:
        """Put into quotation marks the cells that need them."""
        if not self._may_need_quotes[place]:
            return cells
        needs = pc.match_substring_regex(cells, rf'[{self._upload.separator}"\r\n]')
        if not pc.any(needs).as_py():
            return cells
        doubled = pc.replace_substring(cells, '"', '""')
        return pc.if_else(needs, pc.binary_join_element_wise('"', doubled, '"', ""), cells)


def as_text(values: np.ndarray, is_right: np.ndarray) -> pa.StringArray:
    """Write one number for each row that is right, and nothing for the others."""
    return spread(pa.array(round_significant(values)).cast(pa.string()), is_right)


def spread(texts: pa.StringArray, is_right: np.ndarray) -> pa.StringArray:
    """Give one text to each row that is right, and nothing to the others."""
    if len(texts) == len(is_right):
        return texts
    places = pa.array(np.cumsum(is_right) - 1, mask=~is_right)
    return texts.take(places).fill_null("")


def round_significant(values: np.ndarray) -> np.ndarray:
    """Keep the digits that mean something, as f"{value:.6g}" does."""
    size = np.abs(np.where(np.isfinite(values) & (values != 0), values, 1.0))
    n_decimals = SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(size))
    scale = 10.0 ** np.minimum(np.abs(n_decimals), 300)  # 10**-n would not be exact
    with np.errstate(over="ignore", invalid="ignore"):  # of the alternative that is not taken
        rounded = np.rint(values * scale) / scale
        return np.where(n_decimals < 0, np.rint(values / scale) * scale, rounded)


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"input_{name}"
    return name


def _escape_name(name: str) -> str:
    return f"'{name}" if name.startswith(tuple(FORMULA_STARTS.to_pylist())) else name


def _escape_formulas(cells: pa.StringArray, is_number: bool) -> pa.StringArray:
    content = cells.buffers()[2]
    text = content.to_pybytes() if content else b""
    if not any(start in text for start in FORMULA_BYTES):  # in a tenth of the time of what follows
        return cells
    risky = pc.is_in(pc.utf8_slice_codeunits(cells, 0, 1), value_set=FORMULA_STARTS)
    if not pc.any(risky).as_py():
        return cells
    if is_number:  # -5 is one, but a row that is wrong may hold anything
        plain = pc.match_substring_regex(pc.utf8_trim(cells, BLANKS), NUMBER)
        risky = pc.and_not(risky, plain)
    return pc.if_else(risky, pc.binary_join_element_wise("'", cells, ""), cells)
