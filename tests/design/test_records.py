import pytest

from prune_nas.design.files import parse_json, write_bytes, write_json
from prune_nas.design.records import Curve, Expense, Final, TrialRow, read_table, write_table
from prune_nas.errors import PruneNasError

TRIAL = TrialRow("macs=0.2,params=0.05", 3, "FAIL", None, 10, 5, 6, 1.5, "", '{"a":1,"b":2}', 0)


def test_tables_round_trip(tmp_path):
    path = tmp_path / "trials.csv"
    write_table(path, TrialRow, [TRIAL])
    assert read_table(path, TrialRow) == [TRIAL]
    assert path.read_text().splitlines()[0] == "budget,number,state,value,macs,params,epochs,seconds,worker,widths,seed"


def test_a_missing_table_is_empty(tmp_path):
    assert read_table(tmp_path / "none.csv", Curve) == []


def test_a_damaged_table_names_its_line(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("budget,trial,epoch,train_loss,val_accuracy,seconds\na,b,1,0.5\n")
    with pytest.raises(PruneNasError, match="line 2"):
        read_table(path, Curve)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xbb\xff" * 50, b"[" * 200_000, b"budget,arm\n", b"budget\0,arm\n"],
    ids=lambda content: content[:9],
)
def test_what_is_no_table_is_an_error_with_its_name(tmp_path, content):
    (tmp_path / "finals.csv").write_bytes(content)
    with pytest.raises(PruneNasError, match=r"finals.csv: it .*Restore it from a copy. Or delete it"):
        read_table(tmp_path / "finals.csv", Final)


@pytest.mark.parametrize(
    ("text", "says"), [("9" * 400, "a number of 400 digits"), ("nan", "finite"), ("-inf", "finite")]
)
def test_numbers_that_no_reader_need_take(tmp_path, text, says):
    row = f"macs=0.2,supernet,1,{text},0.5,1.0\n"
    (tmp_path / "curves.csv").write_text("budget,trial,epoch,train_loss,val_accuracy,seconds\n" + row)
    with pytest.raises(PruneNasError, match=f"line 2.*{says}"):
        read_table(tmp_path / "curves.csv", Curve)


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1+cmd", "@SUM(A1)", "\tx"])
def test_a_name_that_a_spreadsheet_would_compute_is_refused(tmp_path, name):
    path = tmp_path / "ledger.csv"
    write_table(path, Expense, [Expense("macs=0.4", "finals", "found", 1, 2, 3.0)])
    path.write_text(path.read_text().replace("found", name))
    with pytest.raises(PruneNasError, match="would be a formula"):
        read_table(path, Expense)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, [1])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.json"):
        write_bytes(path, b"[2]")
    assert path.read_text() == "[\n 1\n]\n"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_no_reader_need_take(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("nan"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', "[Infinity]", "", "{", "\0", "9" * 31, "-" + "9" * 5000])
def test_what_is_no_json_is_one_kind_of_error(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_a_last_line_that_a_crash_cut_is_left_out_where_lines_are_added(tmp_path):
    path = tmp_path / "curves.csv"
    whole = "budget,trial,epoch,train_loss,val_accuracy,seconds\n,supernet,1,2.0,0.1,1.0\n"
    for torn in (",supernet,2,1.", ",supernet,2,1.5,0.25,12"):
        path.write_text(whole + torn)
        assert [row.epoch for row in read_table(path, Curve, torn=True)] == [1]
    path.write_text(whole)
    assert [row.epoch for row in read_table(path, Curve, torn=True)] == [1]
