use super::*;
use crate::testing::{concat, schema, table};
use arrow::array::*;
use arrow::datatypes::*;
use proptest::prelude::*;
use std::sync::Arc;

fn format(options: &[(&str, &str)]) -> Format {
    Format::of(Options::of(&table(schema(vec![]), options))).unwrap()
}

fn json(options: &[(&str, &str)]) -> Format {
    format(&[&[("format", "json")], options].concat())
}

fn csv(options: &[(&str, &str)]) -> Format {
    format(&[&[("format", "csv")], options].concat())
}

fn decode(format: Format, schema: SchemaRef, input: &str) -> Result<(RecordBatch, Progress), BadRecord> {
    let mut decoder = Decoder::new(format, schema, None).unwrap();
    let progress = decoder.decode(input.as_bytes(), true, usize::MAX, usize::MAX)?;
    Ok((decoder.take().unwrap(), progress))
}

fn encode(format: Format, rows: &RecordBatch) -> String {
    let mut out = vec![];
    Encoder::new(format, &rows.schema(), false).encode(&Batch::inserts(rows.clone()), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn reason(result: Result<(RecordBatch, Progress), BadRecord>) -> String {
    result.unwrap_err().reason
}

fn wide() -> SchemaRef {
    let inner = DataType::Struct(Fields::from(vec![
        Field::new("x", DataType::Int32, true),
        Field::new("y", DataType::Utf8, true),
    ]));
    schema(vec![
        ("flag", DataType::Boolean),
        ("tiny", DataType::Int8),
        ("int", DataType::Int32),
        ("big", DataType::Int64),
        ("float", DataType::Float32),
        ("double", DataType::Float64),
        ("price", DataType::Decimal128(10, 3)),
        ("name", DataType::Utf8),
        ("view", DataType::Utf8View),
        ("bytes", DataType::Binary),
        ("day", DataType::Date32),
        ("time", DataType::Time32(TimeUnit::Millisecond)),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("instant", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("nested", inner),
        ("list", DataType::List(Arc::new(Field::new("item", DataType::Int64, true)))),
    ])
}

const WIDE: &str = r#"{"flag":true,"tiny":-5,"int":7,"big":9007199254740993,"float":1.5,"double":1.0E10,"price":12.5,"name":"a \"q\" \\ \n é","view":"v","bytes":"AQI=","day":"2020-02-29","time":"12:13:14.5","at":"2020-12-30 12:13:14.123","instant":"2020-12-30 12:13:14.000001Z","nested":{"x":1,"y":"in"},"list":[1,null,3]}
{"flag":null,"tiny":null,"int":null,"big":null,"float":null,"double":null,"price":null,"name":null,"view":null,"bytes":null,"day":null,"time":null,"at":null,"instant":null,"nested":null,"list":null}
{"flag":false,"tiny":0,"int":0,"big":-1,"float":0.0,"double":-0.5,"price":0,"name":"","view":"","bytes":"","day":"1969-12-31","time":"00:00:00","at":"1969-12-31 23:59:59.999","instant":"1970-01-01 00:00:00Z","nested":{"x":null,"y":null},"list":[]}
"#;

#[test]
fn json_of_every_type_comes_back_as_it_was() {
    let (rows, progress) = decode(json(&[]), wide(), WIDE).unwrap();
    assert_eq!(progress, Progress { bytes: WIDE.len(), lines: 3, skipped: 0 });
    assert_eq!(encode(json(&[]), &rows), WIDE);
    assert_eq!(rows.column(3).as_primitive::<Int64Type>().value(0), 9_007_199_254_740_993);
    assert_eq!(rows.column(6).as_primitive::<Decimal128Type>().value(0), 12_500);
    let nested = rows.column(14).as_struct();
    assert!(nested.is_null(1) && nested.column(0).is_null(1));
    assert!(nested.is_valid(2) && nested.column(0).is_null(2));
}

#[test]
fn json_fields_may_come_in_any_order_and_number() {
    let schema = schema(vec![("a", DataType::Int64), ("b", DataType::Utf8)]);
    let input = r#" { "b" : "x" , "extra" : {"deep":[1,{"}":"]"}, "\"\\"]} , "a" : 1 }
{"a":1,"a":2}
{}

null
{"b":{ "k" : [1, "two words"] },"a":"3"}
{"a":3.9,"b":4.50}
{"a":1e2,"b":true}
"#;
    let (rows, progress) = decode(json(&[]), schema, input).unwrap();
    assert_eq!(progress.lines, 8);
    let a: Vec<Option<i64>> = rows.column(0).as_primitive::<Int64Type>().iter().collect();
    let b: Vec<Option<&str>> = rows.column(1).as_string::<i32>().iter().collect();
    assert_eq!(a, vec![Some(1), Some(2), None, Some(3), Some(3), Some(100)]);
    assert_eq!(b, vec![Some("x"), None, None, Some(r#"{"k":[1,"two words"]}"#), Some("4.50"), Some("true")]);
}

#[test]
fn json_escapes() {
    let schema = schema(vec![("s", DataType::Utf8)]);
    let input = r#"{"\u0073":"\u00e9\ud83d\ude00\/\b\f\n\r\t\ud800!"}"#;
    let (rows, _) = decode(json(&[]), schema, input).unwrap();
    assert_eq!(rows.column(0).as_string::<i32>().value(0), "é😀/\u{8}\u{c}\n\r\t\u{fffd}!");
    let controls = RecordBatch::try_from_iter([("s", Arc::new(StringArray::from(vec!["\u{1}\u{1f}"])) as ArrayRef)]);
    assert_eq!(encode(json(&[]), &controls.unwrap()), "{\"s\":\"\\u0001\\u001F\"}\n");
}

#[test]
fn json_that_is_broken_is_refused_with_its_place() {
    let schema = schema(vec![("a", DataType::Int32), ("at", DataType::Timestamp(TimeUnit::Millisecond, None))]);
    for (record, expected) in [
        ("{\"a\":1", "at the end of the record"),
        ("{\"a\" 1}", "expected ':'"),
        ("{\"a\":01}", "expected"),
        ("{\"a\":1.}", "expected a number"),
        ("{\"a\":-}", "expected a number"),
        ("{\"a\":1}x", "something follows"),
        ("{\"a\":1}{\"a\":2}", "something follows"),
        ("[1]", "expected an object"),
        ("{\"a\":tru}", "expected a value"),
        ("{\"a\":\"1}", "not closed"),
        ("{a:1}", "expected a field name"),
        ("{\"a\":2147483648}", "field 'a': '2147483648' is not a INT"),
        ("{\"a\":\"x\"}", "field 'a': 'x' is not a INT"),
        ("{\"a\":[1]}", "field 'a': an array is not a INT"),
        ("{\"at\":\"2020-13-01 00:00:00\"}", "field 'at'"),
        ("{\"at\":\"2020-01-01T00:00:00\"}", "field 'at'"),
    ] {
        let input = format!("{{\"a\":1}}\n{record}\n{{\"a\":2}}\n");
        let bad = decode(json(&[]), schema.clone(), &input).unwrap_err();
        assert_eq!((bad.offset, bad.lines), (8, 1), "{record}");
        assert!(bad.reason.contains(expected), "{record}: {}", bad.reason);
        // Skipped, or the one value null, and the rows around it are whole.
        let (rows, progress) = decode(json(&[("json.ignore-parse-errors", "true")]), schema.clone(), &input).unwrap();
        let a: Vec<Option<i32>> = rows.column(0).as_primitive::<Int32Type>().iter().collect();
        match expected.starts_with("field") {
            true => assert_eq!((a, progress.skipped), (vec![Some(1), None, Some(2)], 0), "{record}"),
            false => assert_eq!((a, progress.skipped), (vec![Some(1), Some(2)], 1), "{record}"),
        }
    }
}

#[test]
fn json_broken_after_a_nested_row_takes_everything_back() {
    let input = r#"{"flag":true,"name":"kept","nested":{"x":1,"y":"a"},"list":[1,2]}
{"flag":true,"name":"lost","nested":{"x":1,"y":"a"},"list":[1,2], "tiny":
{"flag":true,"name":"kept too","nested":{"x":2,"y":"b"},"list":[3]}"#;
    let (rows, progress) = decode(json(&[("json.ignore-parse-errors", "true")]), wide(), input).unwrap();
    assert_eq!(progress, Progress { bytes: input.len(), lines: 3, skipped: 1 });
    let names: Vec<_> = rows.column(7).as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, vec!["kept", "kept too"]);
    let list = rows.column(15).as_list::<i32>();
    assert_eq!(list.value(1).as_primitive::<Int64Type>().values(), &[3]);
}

#[test]
fn json_options_change_what_is_accepted() {
    let schema = schema(vec![("a", DataType::Int32), ("at", DataType::Timestamp(TimeUnit::Millisecond, None))]);
    let missing = json(&[("json.fail-on-missing-field", "true")]);
    assert_eq!(reason(decode(missing, schema.clone(), "{\"a\":1}")), "the field 'at' is missing");
    let iso = json(&[("json.timestamp-format.standard", "ISO-8601")]);
    let (rows, _) = decode(iso.clone(), schema, "{\"a\":1,\"at\":\"2020-01-01T00:00:00.5\"}").unwrap();
    assert_eq!(encode(iso, &rows), "{\"a\":1,\"at\":\"2020-01-01T00:00:00.5\"}\n");
    let prices =
        Decimal128Array::from(vec![27, 454_621_864_049_246_170_000_000_000]).with_precision_and_scale(38, 9).unwrap();
    let prices = RecordBatch::try_from_iter([("d", Arc::new(prices) as ArrayRef)]).unwrap();
    assert_eq!(encode(json(&[]), &prices), "{\"d\":2.7E-8}\n{\"d\":4.5462186404924617E+17}\n");
    let plain = json(&[("json.encode.decimal-as-plain-number", "true")]);
    assert_eq!(encode(plain, &prices), "{\"d\":0.000000027}\n{\"d\":454621864049246170}\n");
    let nulls = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![None])) as ArrayRef)]).unwrap();
    assert_eq!(encode(json(&[("json.encode.ignore-null-fields", "true")]), &nulls), "{}\n");
}

#[test]
fn not_null_columns_refuse_rows_without_a_value() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
    assert!(reason(decode(json(&[]), schema.clone(), "{\"a\":null}")).contains("NOT NULL"));
    assert!(reason(decode(json(&[]), schema.clone(), "{}")).contains("NOT NULL"));
    let (rows, progress) =
        decode(json(&[("json.ignore-parse-errors", "true")]), schema, "{}\n{\"a\":1}\n{\"a\":\"x\"}").unwrap();
    assert_eq!((rows.num_rows(), progress.skipped), (1, 2));
}

#[test]
fn unread_columns_are_passed_over() {
    let required = BTreeSet::from([vec!["nested".to_string(), "y".to_string()], vec!["big".to_string()]]);
    let mut decoder = Decoder::new(json(&[]), wide(), Some(&required)).unwrap();
    decoder.decode(WIDE.as_bytes(), true, usize::MAX, usize::MAX).unwrap();
    let some = decoder.take().unwrap();
    let (full, _) = decode(json(&[]), wide(), WIDE).unwrap();
    assert_eq!(some.column(3), full.column(3));
    assert_eq!(some.column(14).as_struct().column(1), full.column(14).as_struct().column(1));
    assert_eq!(some.column(14).as_struct().nulls(), full.column(14).as_struct().nulls());
    assert_eq!(some.column(14).as_struct().column(0).null_count(), 3);
    assert_eq!(some.column(7).null_count(), 3);
}

#[test]
fn csv_of_every_type_comes_back_as_it_was() {
    let (rows, _) = decode(json(&[]), wide(), WIDE).unwrap();
    let format = csv(&[("csv.null-literal", "NULL")]);
    let text = encode(format.clone(), &rows.slice(0, 2));
    let (back, progress) = decode(format, wide(), &text).unwrap();
    assert_eq!(progress.bytes, text.len());
    assert_eq!(progress.lines, 3, "one value contains a newline");
    assert_eq!(encode(json(&[]), &back), encode(json(&[]), &rows.slice(0, 2)));
}

#[test]
fn csv_quotes_comments_and_nulls() {
    let schema = schema(vec![("a", DataType::Utf8), ("b", DataType::Int32)]);
    let read = |options: &[(&str, &str)], input: &str| {
        decode(csv(options), schema.clone(), input).map(|(rows, _)| {
            let a = rows.column(0).as_string::<i32>().iter().map(|value| value.map(str::to_string)).collect::<Vec<_>>();
            let b = rows.column(1).as_primitive::<Int32Type>().iter().collect::<Vec<_>>();
            a.into_iter().zip(b).collect::<Vec<_>>()
        })
    };
    let some = |text: &str, number| (Some(text.to_string()), number);
    assert_eq!(
        read(&[], "\"x, \"\"y\"\"\nz\",1\r\nplain \"q\", 2 \n\n,\nlast,3").unwrap(),
        vec![some("x, \"y\"\nz", Some(1)), some("plain \"q\"", Some(2)), some("", None), some("last", Some(3))]
    );
    assert_eq!(
        read(
            &[("csv.allow-comments", "true"), ("csv.null-literal", "\\N"), ("csv.field-delimiter", "|")],
            "#\"c\n\\N|\\N\n"
        )
        .unwrap(),
        vec![(None, None)]
    );
    assert_eq!(read(&[("csv.disable-quote-character", "true")], "\"a\",1").unwrap(), vec![some("\"a\"", Some(1))]);
    assert_eq!(
        read(&[("csv.escape-character", "\\")], "a\\,b,1\n\"c\\\"d\",2\n\\é,3").unwrap(),
        vec![some("a,b", Some(1)), some("c\"d", Some(2)), some("é", Some(3))]
    );
    for (input, expected) in [
        ("a", "1 fields where the table has 2 columns"),
        ("a,1,c", "3 fields"),
        ("a,x", "field 'b': 'x' is not a INT"),
        ("\"a,1", "closing quote"),
        ("\"a\"b,1", "delimiter is missing"),
    ] {
        let reason = read(&[], input).unwrap_err().reason;
        assert!(reason.contains(expected), "{input}: {reason}");
    }
    let lenient = [("csv.ignore-parse-errors", "true")];
    let rows = read(&lenient, "a\na,x\na,1,c\n\"a\"b,1\nb,2").unwrap();
    assert_eq!(rows, vec![some("a", None), some("a", None), some("b", Some(2))]);
}

#[test]
fn csv_without_quotes_refuses_what_it_cannot_write() {
    let rows = RecordBatch::try_from_iter([("a", Arc::new(StringArray::from(vec!["x,y"])) as ArrayRef)]).unwrap();
    let format = csv(&[("csv.disable-quote-character", "true")]);
    let result = Encoder::new(format, &rows.schema(), false).encode(&Batch::inserts(rows.clone()), &mut vec![]);
    assert!(result.unwrap_err().to_string().contains("csv.quote-character"));
    let escaped = csv(&[("csv.disable-quote-character", "true"), ("csv.escape-character", "\\")]);
    assert_eq!(encode(escaped, &rows), "x\\,y\n");
}

#[test]
fn the_changelog_field_comes_first() {
    let rows = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    let batch = Batch::changes(rows, vec![1, 2]);
    for (format, expected) in
        [(json(&[]), "{\"op\":\"-U\",\"a\":1}\n{\"op\":\"+U\",\"a\":2}\n"), (csv(&[]), "-U,1\n+U,2\n")]
    {
        let mut out = vec![];
        Encoder::new(format, &batch.schema(), true).encode(&batch, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn wrong_options_are_refused() {
    for (options, expected) in [
        (&[("format", "xml")][..], "'xml'"),
        (&[], "missing"),
        (&[("format", "json"), ("csv.null-literal", "x")], "csv.null-literal"),
        (&[("format", "csv"), ("csv.field-delimiter", "ab")], "'ab'"),
        (&[("format", "csv"), ("csv.field-delimiter", "\"")], "quote"),
        (&[("format", "json"), ("json.timestamp-format.standard", "UNIX")], "'UNIX'"),
        (&[("format", "json"), ("json.ignore-parse-errors", "true"), ("json.fail-on-missing-field", "true")], "choose"),
    ] {
        let error = Format::of(Options::of(&table(schema(vec![]), options))).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Feeds `input` in pieces cut at `cuts`, as a reader that gets it bit by bit would.
fn decode_in_pieces(format: Format, schema: SchemaRef, input: &[u8], cuts: &[usize], max_rows: usize) -> RecordBatch {
    let mut decoder = Decoder::new(format, schema, None).unwrap();
    let mut batches = vec![];
    let (mut start, mut end) = (0, 0);
    for cut in cuts.iter().copied().chain([input.len()]) {
        end = end.max(cut.min(input.len()));
        loop {
            let at_end = end == input.len();
            let progress = decoder.decode(&input[start..end], at_end, usize::MAX, max_rows).unwrap();
            start += progress.bytes;
            if decoder.rows() < max_rows {
                break;
            }
            batches.push(decoder.take().unwrap());
        }
    }
    assert_eq!(start, input.len());
    batches.push(decoder.take().unwrap());
    concat(&batches)
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_rows(
        values in proptest::collection::vec(("[a\"\\\\,;\n\r é#]{0,8}", proptest::option::of(any::<i32>())), 0..20),
        cuts in proptest::collection::vec(0usize..400, 0..8),
        max_rows in 1usize..6,
        final_newline in any::<bool>(),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let schema = schema(vec![("a", DataType::Utf8), ("b", DataType::Int32)]);
        let rows = RecordBatch::try_new(schema.clone(), vec![
            Arc::new(StringArray::from_iter_values(values.iter().map(|(text, _)| text))),
            Arc::new(Int32Array::from_iter(values.iter().map(|(_, number)| *number))),
        ]).unwrap();
        for format in [json(&[]), csv(&[]), csv(&[("csv.escape-character", "\\")])] {
            let mut text = encode(format.clone(), &rows);
            if !final_newline {
                text.pop();
            }
            let back = decode_in_pieces(format, schema.clone(), text.as_bytes(), &cuts, max_rows);
            prop_assert_eq!(&back, &rows);
        }
    }

    #[test]
    fn every_line_belongs_to_exactly_one_byte_range(
        lengths in proptest::collection::vec(0usize..12, 0..20),
        split in 1usize..30,
        final_newline in any::<bool>(),
    ) {
        let schema = schema(vec![("a", DataType::Utf8)]);
        let mut text: String = lengths.iter().map(|length| format!("{{\"a\":\"{}\"}}\n", "x".repeat(*length))).collect();
        if !final_newline {
            text.pop();
        }
        let mut seen = vec![];
        for start in (0..text.len()).step_by(split) {
            // The first record that starts in the range is the first after a newline at or after its predecessor.
            let from = if start == 0 { Some(0) } else {
                text.as_bytes()[start - 1..].iter().position(|byte| *byte == b'\n').map(|at| start + at)
            };
            let Some(from) = from.filter(|from| *from < text.len()) else { continue };
            let mut decoder = Decoder::new(json(&[]), schema.clone(), None).unwrap();
            let limit = (start + split).saturating_sub(from);
            decoder.decode(&text.as_bytes()[from..], true, limit, usize::MAX).unwrap();
            let rows = decoder.take().unwrap();
            seen.extend(rows.column(0).as_string::<i32>().iter().flatten().map(str::len));
        }
        prop_assert_eq!(seen, lengths);
    }

    #[test]
    fn no_input_makes_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\":,\\\\a1\nu-]{0,40}") {
        for input in [bytes.as_slice(), text.as_bytes()] {
            for format in [json(&[("json.ignore-parse-errors", "true")]), csv(&[("csv.ignore-parse-errors", "true"), ("csv.escape-character", "\\")])] {
                let mut decoder = Decoder::new(format, wide(), None).unwrap();
                decoder.decode(input, true, usize::MAX, usize::MAX).unwrap();
                let rows = decoder.rows();
                prop_assert_eq!(decoder.take().unwrap().num_rows(), rows);
            }
        }
    }
}
