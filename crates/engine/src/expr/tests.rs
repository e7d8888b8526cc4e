//! SQL over a few rows: what it gives, and what is refused.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::Schema;
use arrow::util::display::array_value_to_string;

use super::*;

/// Two rows with a column of each kind, and some whose names are SQL's.
fn rows() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(7), None]))),
        ("i", Arc::new(Int32Array::from(vec![i32::MAX, i32::MIN]))),
        ("big", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN]))),
        ("zero", Arc::new(Int64Array::from(vec![0, 2]))),
        ("x", Arc::new(Float64Array::from(vec![1.5, -2.0]))),
        ("amount", Arc::new(Decimal128Array::from(vec![1999, -5]).with_precision_and_scale(12, 2).unwrap())),
        ("name", Arc::new(StringArray::from(vec![Some("ann"), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ("day", Arc::new(Date32Array::from(vec![0, 20_000]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![0, 253_402_300_799_999]))),
        ("user", Arc::new(StringArray::from(vec!["u1", "u2"]))),
        ("end", Arc::new(Int64Array::from(vec![1, 2]))),
        ("order", Arc::new(Int64Array::from(vec![10, 20]))),
        ("timestamp", Arc::new(Int64Array::from(vec![100, 200]))),
        ("date", Arc::new(Int64Array::from(vec![5, 6]))),
        ("key", Arc::new(StringArray::from(vec!["k", "l"]))),
        ("value", Arc::new(Int64Array::from(vec![3, 4]))),
        ("current_date", Arc::new(Int64Array::from(vec![8, 9]))),
        ("interval", Arc::new(Int64Array::from(vec![11, 12]))),
        ("Name", Arc::new(StringArray::from(vec!["UPPER", "CASE"]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn scope(schema: &Schema) -> Scope {
    let column = |field: &Arc<arrow::datatypes::Field>| ScopeColumn {
        name: field.name().clone(),
        data_type: Some(field.data_type().clone()),
        nullable: true,
    };
    Scope { columns: schema.fields().iter().map(column).collect(), ..Scope::default() }
}

/// Values of both rows and the type; a failed row shows its reason.
fn check(sql: &str, expected: &str) {
    let rows = rows();
    let typed = match analyze(sql, &scope(&rows.schema())) {
        Ok(typed) => typed,
        Err(mistakes) => panic!("{sql}: {mistakes:?}"),
    };
    let evaluated = typed.build(&rows.schema()).unwrap().evaluate(&rows);
    assert_eq!(evaluated.values.data_type(), &typed.data_type, "{sql}");
    let mut shown: Vec<String> = (0..2)
        .map(|row| match evaluated.values.is_null(row) {
            true => "NULL".to_owned(),
            false => array_value_to_string(&evaluated.values, row).unwrap(),
        })
        .collect();
    for (row, _) in &evaluated.failed {
        assert_eq!(shown[*row as usize], "NULL", "{sql}");
        shown[*row as usize] = "FAILED".to_owned();
    }
    assert_eq!(format!("{}: {}", sql_type(&typed.data_type), shown.join(", ")), expected, "{sql}");
}

/// Code and text of each mistake.
fn refused(sql: &str, expected: &[(Code, &str)]) {
    let rows = rows();
    let mistakes = analyze(sql, &scope(&rows.schema())).map(|typed| typed.data_type).unwrap_err();
    let shown: Vec<_> = mistakes.iter().map(|mistake| (mistake.code, &sql[mistake.at.clone()])).collect();
    assert_eq!(shown, expected, "{sql}: {mistakes:?}");
}

#[test]
fn names_of_columns_go_before_keywords() {
    check("user", "varchar: u1, u2");
    check("\"user\" || user", "varchar: u1u1, u2u2");
    check("order + 1", "bigint: 11, 21");
    check("timestamp + date + value", "bigint: 108, 210");
    check("current_date", "bigint: 8, 9");
    check("interval", "bigint: 11, 12");
    check("case when end = 1 then end end", "bigint: 1, NULL");
    check("case end when 1 then 'one' else key end", "varchar: one, l");
    check("case when date > 5 then date else end end", "bigint: 1, 6");
    check("end between end and order and end in (end)", "boolean: true, true");
    check("upper(key) = 'K' or not flag", "boolean: true, true");
    check("(end)", "bigint: 1, 2");
    check("user is not null and end is distinct from date", "boolean: true, true");
}

#[test]
fn names_are_never_folded() {
    check("Name", "varchar: UPPER, CASE");
    check("name", "varchar: ann, NULL");
    refused("NAME", &[(Code::UnknownColumn, "NAME")]);
}

#[test]
fn keywords_stay_keywords() {
    check("date '2024-10-04' = day", "boolean: false, true");
    check("cast(day as timestamp)", "timestamp: 1970-01-01T00:00:00, 2024-10-04T00:00:00");
    check("extract(day from day)", "int: 1, 4");
    check("at < timestamp '2026-01-01 00:00:00'", "boolean: true, false");
    check("at + interval '1 hour' > at and zero = 0", "boolean: true, false");
    check("date::double", "double: 5.0, 6.0");
    check("cast(date as decimal(5, 1))", "decimal(5,1): 5.0, 6.0");
    check("flag is true and flag is not false", "boolean: true, false");
}

#[test]
fn arithmetic_fails_where_it_does_not_fit() {
    check("big + 1", "bigint: FAILED, -9223372036854775807");
    check("big - 1", "bigint: 9223372036854775806, FAILED");
    check("big * 2", "bigint: FAILED, FAILED");
    check("-big", "bigint: -9223372036854775807, FAILED");
    check("-i", "int: -2147483647, FAILED");
    check("i + i", "int: FAILED, FAILED");
    check("abs(big)", "bigint: 9223372036854775807, FAILED");
    check("n / zero", "bigint: FAILED, NULL");
    check("1 / zero", "bigint: FAILED, 0");
    check("zero <> 0 and 4 / zero = 2", "boolean: false, true");
    check("coalesce(n, 1 / zero)", "bigint: 7, 0");
    refused(
        "n + 9223372036854775807 + 9223372036854775807 * 2",
        &[(Code::AlwaysFails, "9223372036854775807 * 2")],
    );
    refused("1 / 0", &[(Code::AlwaysFails, "1 / 0")]);
}

#[test]
fn casts_are_strict() {
    check("cast(name as bigint)", "bigint: FAILED, NULL");
    check("try_cast(name as bigint)", "bigint: NULL, NULL");
    check("cast(amount * 100 as bigint)", "bigint: 1999, -5");
    check("cast(big as int)", "int: FAILED, FAILED");
    refused("cast('abc' as int)", &[(Code::AlwaysFails, "'abc'")]);
}

#[test]
fn decimals_stay_exact() {
    check("amount * 1.19", "decimal(16,4): 23.7881, -0.0595");
    check("amount > 0.5", "boolean: true, false");
    check("x > 1", "boolean: true, false");
    check("amount + 1", "decimal(23,2): 20.99, 0.95");
}

#[test]
fn results_have_few_types() {
    check("concat(name, key)", "varchar: annk, l");
    check("length(user)", "int: 2, 2");
    check("'a'", "varchar: a, a");
    check("date_trunc('day', at)", "timestamp: 1970-01-01T00:00:00, 9999-12-31T00:00:00");
    check("true", "boolean: true, true");
    refused("null", &[(Code::ResultType, "null")]);
    refused(
        "day - interval '1 day' || 'x' || interval",
        &[(Code::TypeMismatch, "day - interval '1 day' || 'x' || interval")],
    );
    refused(
        "named_struct('a', interval '1 day')",
        &[(Code::ResultType, "named_struct('a', interval '1 day'")],
    );
    refused("interval '1 day'", &[(Code::ResultType, "'1 day'")]);
}

#[test]
fn text_and_numbers_do_not_mix() {
    refused("name > 5", &[(Code::TypeMismatch, "name > 5")]);
    refused("n = 1 and (key + 1 = 2)", &[(Code::TypeMismatch, "key + 1")]);
    refused("name = n", &[(Code::TypeMismatch, "name = n")]);
    check("n = '7'", "boolean: true, NULL");
    check("name || n", "varchar: ann7, NULL");
    refused("upper(key, key)", &[(Code::TypeMismatch, "upper(key, key")]);
    refused("not n", &[(Code::TypeMismatch, "n")]);
}

#[test]
fn what_is_not_a_function_of_the_row_is_refused() {
    refused("now()", &[(Code::NotDeterministic, "now")]);
    refused(
        "at > NOW() or random() > x",
        &[(Code::NotDeterministic, "NOW"), (Code::NotDeterministic, "random")],
    );
    refused("current_timestamp", &[(Code::NotDeterministic, "current_timestamp")]);
    refused("uuid()", &[(Code::NotDeterministic, "uuid")]);
    refused("sum(n)", &[(Code::NotScalar, "sum")]);
    refused("row_number() over ()", &[(Code::NotScalar, "row_number")]);
    refused("n in (select 1)", &[(Code::NotScalar, "n in (select 1")]);
    refused("exists (select 1)", &[(Code::NotScalar, "select 1")]);
    refused("$1", &[(Code::NotScalar, "$1")]);
    refused("{a: 1}", &[(Code::NotScalar, "{a: 1}")]);
    refused("[1, 2]", &[(Code::NotScalar, "1, 2")]);
    refused("_key", &[(Code::UnknownColumn, "_key")]);
}

#[test]
fn mistakes_are_told_all_at_once_and_where_they_are() {
    refused("nn + zeroo > 1", &[(Code::UnknownColumn, "nn"), (Code::UnknownColumn, "zeroo")]);
    refused("uper(key)", &[(Code::UnknownFunction, "uper")]);
    refused("name = \"DE\"", &[(Code::UnknownColumn, "\"DE\"")]);
    refused("a.b", &[(Code::UnknownColumn, "a.b")]);
    refused("n > 1 xx yy", &[(Code::SqlSyntax, "xx")]);
    refused("n > 1;", &[(Code::SqlSyntax, ";")]);
    refused("n >", &[(Code::SqlSyntax, "")]);
    refused("(n", &[(Code::SqlSyntax, "")]);
    refused("n = 'x", &[(Code::SqlSyntax, "'x")]);
    refused("", &[(Code::SqlSyntax, "")]);
    refused("-- n", &[(Code::SqlSyntax, "-- n")]);
    refused("n = \n zeroo", &[(Code::UnknownColumn, "zeroo")]);
    refused("key = 'é' and ñ", &[(Code::UnknownColumn, "ñ")]);
}

#[test]
fn bombs_are_refused() {
    for bomb in [
        "(".repeat(50_000),
        "n + ".repeat(50_000),
        "not ".repeat(1_500),
        "- ".repeat(900),
        "n + ".repeat(900) + "n",
    ] {
        let rows = rows();
        let mistakes = analyze(&bomb, &scope(&rows.schema())).map(|typed| typed.data_type).unwrap_err();
        assert!(matches!(mistakes[0].code, Code::TooLarge | Code::SqlSyntax), "{mistakes:?}");
    }
    check(&("n".to_owned() + &" + 0".repeat(100)), "bigint: 7, NULL");
    let list = (0..500).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    check(&format!("n in ({list})"), "boolean: true, NULL");
}

#[test]
fn unknown_types_are_not_reported_again() {
    let open = Scope { open: true, ..Scope::default() };
    assert_eq!(analyze("whatever > 1", &open).unwrap_err(), []);
    let unknown = ScopeColumn { name: "a".to_owned(), data_type: None, nullable: true };
    let scope = Scope { columns: vec![unknown], ..Scope::default() };
    assert_eq!(analyze("a > 1", &scope).unwrap_err(), []);
    assert_eq!(analyze("a > b", &scope).unwrap_err().len(), 1);
}

#[test]
fn aggregates() {
    let rows = rows();
    let scope = scope(&rows.schema());
    let call = |sql: &str| {
        analyze_aggregate(sql, &scope)
            .map(|call| sql_type(&call.result_type))
            .map_err(|mistakes| mistakes[0].code)
    };
    assert_eq!(call("count(*)"), Ok("bigint".to_owned()));
    assert_eq!(call("COUNT(name)"), Ok("bigint".to_owned()));
    assert_eq!(call("sum(i * 2)"), Ok("bigint".to_owned()));
    assert_eq!(call("sum(amount)"), Ok("decimal(38,2)".to_owned()));
    assert_eq!(call("avg(amount)"), Ok("decimal(38,6)".to_owned()));
    assert_eq!(call("avg(n)"), Ok("double".to_owned()));
    assert_eq!(call("(max(key))"), Ok("varchar".to_owned()));
    assert_eq!(call("min(at)"), Ok("timestamp".to_owned()));
    assert_eq!(call("sum(case when flag then 1 else 0 end)"), Ok("bigint".to_owned()));
    assert_eq!(call("sum(name)"), Err(Code::TypeMismatch));
    assert_eq!(call("sum(*)"), Err(Code::NotAggregate));
    assert_eq!(call("sum(n) / count(*)"), Err(Code::NotAggregate));
    assert_eq!(call("n"), Err(Code::NotAggregate));
    assert_eq!(call("upper(key)"), Err(Code::NotAggregate));
    assert_eq!(call("count(distinct n limit 10)"), Ok("bigint".to_owned()));
    assert_eq!(call("count(distinct n)"), Err(Code::NotAggregate));
    assert_eq!(call("count(distinct n limit 0)"), Err(Code::NotAggregate));
    assert_eq!(call("sum(distinct n)"), Err(Code::NotAggregate));
    assert_eq!(call("sum(n limit 5)"), Err(Code::NotAggregate));
    assert_eq!(call("array_agg(amount limit 5)"), Ok("decimal(12,2)[]".to_owned()));
    assert_eq!(call("array_agg(amount)"), Err(Code::NotAggregate));
    assert_eq!(call("array_agg(amount order by n limit 5)"), Err(Code::NotYet));
    assert_eq!(call("approx_distinct(name)"), Ok("bigint".to_owned()));
    assert_eq!(call("approx_distinct(*)"), Err(Code::NotAggregate));
    assert_eq!(call("approx_percentile(amount, 0.07)"), Ok("double".to_owned()));
    assert_eq!(call("approx_percentile_cont(n, 1)"), Ok("double".to_owned()));
    assert_eq!(call("approx_percentile(name, 0.5)"), Err(Code::TypeMismatch));
    for wrong in ["n", "n, n", "n, 1.5", "n, 0.12345678", "n, -0.1", "n, 0.5, 2"] {
        assert_eq!(call(&format!("approx_percentile({wrong})")), Err(Code::NotAggregate), "{wrong}");
    }
    assert_eq!(call("stddev(n)"), Ok("double".to_owned()));
    assert_eq!(call("var_pop(amount)"), Ok("double".to_owned()));
    assert_eq!(call("var_pop(name)"), Err(Code::TypeMismatch));
    assert_eq!(call("bool_or(flag)"), Ok("boolean".to_owned()));
    assert_eq!(call("bool_or(n)"), Err(Code::TypeMismatch));
    assert_eq!(call("last_value(name)"), Ok("varchar".to_owned()));
    assert_eq!(call("corr(n)"), Err(Code::NotYet));
    assert_eq!(call("sum(n) filter (where flag)"), Ok("bigint".to_owned()));
    assert_eq!(call("count(*) filter (where n > 1)"), Ok("bigint".to_owned()));
    assert_eq!(call("sum(n) filter (where n)"), Err(Code::TypeMismatch));
    assert_eq!(call("sum(n) filter (where nn)"), Err(Code::UnknownColumn));
    assert_eq!(call("sum(n) over ()"), Err(Code::NotScalar));
    assert_eq!(call("sum(sum(n))"), Err(Code::NotScalar));
    assert_eq!(call("sum(nn)"), Err(Code::UnknownColumn));
}
