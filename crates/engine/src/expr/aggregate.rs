//! Aggregates: one call of one function of the allow-list.

use arrow::datatypes::DataType;
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned,
};

use super::check::AGGREGATES;
use super::planner::{Typed, analyze_part};
use super::syntax::Syntax;
use super::types::{is_scalar, sql_type};
use super::{Mistake, Scope};
use crate::diagnostics::Code;
use crate::plan::AggregateFunction;

/// A checked aggregate.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which function.
    pub function: AggregateFunction,
    /// Its argument; `None` for `count(*)`.
    pub argument: Option<Typed>,
    /// Type of the result.
    pub result_type: DataType,
    /// The call in one canonical spelling.
    pub sql: String,
}

/// The functions, with the name that each has in [`AggregateCall::sql`].
const FUNCTIONS: &[(&str, AggregateFunction)] = &[
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("avg", AggregateFunction::Avg),
];

/// Parses and types an aggregate. As with [`analyze`](super::analyze), an empty list of mistakes means that they have been reported.
///
/// # Errors
/// All mistakes that can be told apart.
pub fn analyze_aggregate(text: &str, scope: &Scope) -> Result<AggregateCall, Vec<Mistake>> {
    let syntax = Syntax::parse(text, scope).map_err(|mistake| vec![mistake])?;
    let mut ast = &syntax.ast;
    while let Ast::Nested(inner) = ast {
        ast = inner;
    }
    let Ast::Function(call) = ast else {
        return Err(vec![not_one_call(&syntax, ast)]);
    };
    let at = syntax.range(call.name.span());
    let written = call.name.to_string();
    let name = written.to_lowercase();
    let Some((name, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
        if AGGREGATES.contains(&name.as_str()) {
            return Err(vec![Mistake::new(
                Code::NotYet,
                at,
                format!("the aggregate `{written}` is not supported yet"),
            )]);
        }
        return Err(vec![not_one_call(&syntax, ast)]);
    };
    let argument = argument(call, &syntax, &written)?;
    let argument = match argument {
        None if *function == AggregateFunction::Count => {
            return Ok(AggregateCall {
                function: *function,
                argument: None,
                result_type: DataType::Int64,
                sql: "count(*)".to_owned(),
            });
        }
        None => {
            return Err(vec![Mistake::new(
                Code::NotAggregate,
                at,
                format!("`{written}` needs one argument"),
            )]);
        }
        Some(argument) => argument,
    };
    let typed = analyze_part(argument, &syntax, scope)?;
    let Some(result_type) = result_type(*function, &typed.data_type) else {
        let message = format!("`{written}` does not take {}", sql_type(&typed.data_type));
        return Err(vec![Mistake::new(Code::TypeMismatch, syntax.range_of(argument), message)]);
    };
    let sql = format!("{name}({})", typed.sql);
    Ok(AggregateCall { function: *function, argument: Some(typed), result_type, sql })
}

fn not_one_call(syntax: &Syntax, ast: &Ast) -> Mistake {
    Mistake::new(Code::NotAggregate, syntax.range_of(ast), "an aggregate is one call of count, sum, min, max or avg").hint(
        "compute with columns inside of it, `sum(price * quantity)`, and with its result in the `select` of a later step",
    )
}

/// The argument of the call; `None` for `*`.
fn argument<'a>(call: &'a Function, syntax: &Syntax, written: &str) -> Result<Option<&'a Ast>, Vec<Mistake>> {
    let at = syntax.range(call.span());
    let refuse = |what: &str| {
        Err(vec![Mistake::new(Code::NotYet, at.clone(), format!("{what} is not supported yet"))])
    };
    if call.over.is_some() {
        let message =
            "SQL's window functions have no place here: the step's `window` says which rows belong together";
        return Err(vec![Mistake::new(Code::NotScalar, at, message)]);
    }
    if call.filter.is_some() {
        return refuse("`filter (where …)`");
    }
    let FunctionArguments::List(list) = &call.args else {
        return Err(vec![Mistake::new(Code::NotAggregate, at, format!("`{written}` needs one argument"))]);
    };
    if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
        return refuse("`distinct` in an aggregate");
    }
    if !list.clauses.is_empty() || !call.within_group.is_empty() || call.null_treatment.is_some() {
        return refuse("an order in an aggregate");
    }
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] => Ok(None),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast))] => Ok(Some(ast)),
        _ => Err(vec![Mistake::new(Code::NotAggregate, at, format!("`{written}` needs one argument"))]),
    }
}

fn result_type(function: AggregateFunction, argument: &DataType) -> Option<DataType> {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    let integer = argument.is_integer();
    let float = argument.is_floating();
    match (function, argument) {
        (Count, _) => Some(DataType::Int64),
        (Sum, _) if integer => Some(DataType::Int64),
        (Sum | Avg, _) if float => Some(DataType::Float64),
        (Avg, _) if integer => Some(DataType::Float64),
        (Sum, DataType::Decimal128(_, scale)) => Some(DataType::Decimal128(38, *scale)),
        (Avg, DataType::Decimal128(_, scale)) => Some(DataType::Decimal128(38, (*scale + 4).min(38))),
        (Min | Max, DataType::Boolean) => None,
        (Min | Max, _) => is_scalar(argument).then(|| argument.clone()),
        (Sum | Avg, _) => None,
    }
}
