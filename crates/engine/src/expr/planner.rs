//! Syntax tree → typed expression → physical expression.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, Result as PlanResult, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Case, Cast, Expr as Logical, ExprSchemable, Operator};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::sqlparser::ast::Expr as Ast;

use super::check::{Checked, check, operands};
use super::syntax::Syntax;
use super::types::{JSON, column_type, sql_type};
use super::{Expr, Mistake, Scope, ScopeColumn};
use crate::diagnostics::Code;

/// An expression of a known type that has not been bound to a schema.
#[derive(Clone, Debug)]
pub struct Typed {
    logical: Logical,
    /// Type of its values, one of the types of [`crate::plan`].
    pub data_type: DataType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// The columns that it names.
    pub columns: BTreeSet<String>,
    /// The expression in one canonical spelling.
    pub sql: String,
    /// Its name, if it is nothing but a column.
    pub column: Option<String>,
}

impl Typed {
    /// Nothing but a column; `None` where its type is unknown.
    pub fn of_column(column: &ScopeColumn) -> Option<Typed> {
        let name = column.name.clone();
        Some(Typed {
            logical: Logical::Column(Column::from_name(&name)),
            data_type: column.data_type.clone()?,
            nullable: column.nullable,
            columns: BTreeSet::from([name.clone()]),
            sql: format!("\"{}\"", name.replace('"', "\"\"")),
            column: Some(name),
        })
    }

    /// `true`: what `count(*)` counts where it has a `filter`.
    pub(super) fn always() -> Typed {
        Typed {
            logical: Logical::Literal(ScalarValue::Boolean(Some(true)), None),
            data_type: DataType::Boolean,
            nullable: false,
            columns: BTreeSet::new(),
            sql: "true".to_owned(),
            column: None,
        }
    }

    /// The same where a condition is true, else NULL.
    pub(super) fn only_where(self, condition: Typed) -> Typed {
        let when = vec![(Box::new(condition.logical), Box::new(self.logical))];
        Typed {
            logical: Logical::Case(Case::new(None, when, None)),
            nullable: true,
            columns: self.columns.into_iter().chain(condition.columns).collect(),
            sql: format!("case when {} then {} end", condition.sql, self.sql),
            column: None,
            ..self
        }
    }

    /// Binds it to a schema that has at least the columns that it names.
    ///
    /// # Errors
    /// A text, where DataFusion cannot evaluate an expression that it planned.
    pub fn build(&self, schema: &Schema) -> Result<Expr, String> {
        let schema = DFSchema::try_from(schema.clone()).map_err(|error| readable(&error))?;
        let physical = physical(&self.logical, &schema).map_err(|error| readable(&error))?;
        Ok(Expr::new(physical, self.data_type.clone(), &self.sql))
    }
}

/// Parses and types an expression. An empty list of mistakes means that it names a column whose own mistake has been reported.
///
/// # Errors
/// All mistakes that can be told apart.
pub fn analyze(text: &str, scope: &Scope) -> Result<Typed, Vec<Mistake>> {
    let syntax = Syntax::parse(text, scope).map_err(|mistake| vec![mistake])?;
    analyze_part(&syntax.ast, &syntax, scope)
}

/// Types `ast`, a part of `syntax`.
pub(super) fn analyze_part(ast: &Ast, syntax: &Syntax, scope: &Scope) -> Result<Typed, Vec<Mistake>> {
    let Checked { columns, unknown, mistakes } = check(ast, syntax, scope);
    if unknown || !mistakes.is_empty() {
        return Err(mistakes);
    }
    let failed = |failure: Failure| vec![failure.at(syntax.range_of(ast))];
    let schema = schema_of(scope, &columns).map_err(|error| failed(error.into()))?;
    let planned = plan(ast, &schema).map_err(|failure| vec![locate(ast, syntax, &schema, failure)])?;
    let data_type = match is_path(&planned.logical) || is_json(&planned.logical, &schema) {
        true => Some(planned.data_type.clone()),
        false => column_type(&planned.data_type),
    };
    let Some(data_type) = data_type else {
        return Err(failed(no_column(&planned.data_type)));
    };
    let (logical, simplified) = (planned.logical, |logical| simplify(logical, &schema));
    let logical = if data_type == planned.data_type {
        logical
    } else {
        Logical::Cast(Cast::new(Box::new(logical), data_type.clone()))
    };
    let logical = simplified(logical).map_err(|error| failed(error.into()))?;
    // Simplification must not change the type that the schemas were made from.
    let logical = match logical.get_type(&schema) {
        Ok(simple) if simple == data_type => logical,
        _ => Logical::Cast(Cast::new(Box::new(logical), data_type.clone())),
    };
    physical(&logical, &schema).map_err(|error| failed(error.into()))?;
    let column = match &logical {
        Logical::Column(column) => Some(column.name.clone()),
        _ => None,
    };
    Ok(Typed { logical, data_type, nullable: planned.nullable, columns, sql: ast.to_string(), column })
}

/// A column, or a member of one: its type is what the column was declared with.
fn is_path(expr: &Logical) -> bool {
    match expr {
        Logical::Column(_) => true,
        Logical::ScalarFunction(call) if call.name() == "get_field" => call.args.first().is_some_and(is_path),
        _ => false,
    }
}

/// Whether the value is, in any case, that of a `json` column, as it is.
fn is_json(expr: &Logical, schema: &DFSchema) -> bool {
    let is_null = |expr: &Logical| match expr {
        Logical::Literal(value, _) => value.is_null(),
        Logical::Cast(cast) => matches!(&*cast.expr, Logical::Literal(value, _) if value.is_null()),
        _ => false,
    };
    let fits = |result: &Logical| is_null(result) || is_json(result, schema);
    match expr {
        Logical::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| &**then);
            results.chain(case.else_expr.as_deref()).all(fits)
        }
        Logical::ScalarFunction(call) if call.name() == "coalesce" => call.args.iter().all(fits),
        path => is_path(path) && path.get_type(schema).is_ok_and(|data_type| data_type == JSON),
    }
}

/// Why an expression cannot be planned.
struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn at(self, at: std::ops::Range<usize>) -> Mistake {
        Mistake { code: self.code, at, message: self.message, label: None, hint: self.hint }
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Failure {
        Failure { code: Code::TypeMismatch, message: readable(&error), hint: None }
    }
}

fn no_column(data_type: &DataType) -> Failure {
    let (message, hint) = match data_type {
        DataType::Null => ("NULL alone has no type".to_owned(), "give it one: `cast(null as varchar)`"),
        other => {
            (format!("a column cannot be a {}", sql_type(other)), "cast it to a type that a schema may have")
        }
    };
    Failure { code: Code::ResultType, message, hint: Some(hint.to_owned()) }
}

struct Planned {
    logical: Logical,
    data_type: DataType,
    nullable: bool,
}

fn plan(ast: &Ast, schema: &DFSchema) -> Result<Planned, Failure> {
    let raw = onceflow_sql::plan_expression(ast, schema)?;
    refuse_text_arithmetic(&raw, schema)?;
    let simplifier = ExprSimplifier::new(context(schema));
    let logical = simplifier.coerce(raw, schema)?;
    let data_type = logical.get_type(schema)?;
    let nullable = logical.nullable(schema)?;
    refuse_failing_constants(&logical)?;
    Ok(Planned { logical, data_type, nullable })
}

fn simplify(logical: Logical, schema: &DFSchema) -> PlanResult<Logical> {
    ExprSimplifier::new(context(schema)).simplify(logical)
}

fn context(schema: &DFSchema) -> SimplifyContext {
    SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build()
}

/// The smallest part of `ast` that fails on its own, with its reason; else the whole with `failure`.
fn locate(ast: &Ast, syntax: &Syntax, schema: &DFSchema, failure: Failure) -> Mistake {
    fn smallest(part: &Ast, syntax: &Syntax, schema: &DFSchema) -> Option<Mistake> {
        let operands = operands(part).unwrap_or_default();
        operands.into_iter().find_map(|operand| smallest(operand, syntax, schema)).or_else(|| {
            let failure = plan(part, schema).err()?;
            Some(explain(part, schema, failure).at(syntax.range_of(part)))
        })
    }
    smallest(ast, syntax, schema).unwrap_or_else(|| failure.at(syntax.range_of(ast)))
}

/// Says it in the words of SQL where DataFusion speaks of its own types.
fn explain(part: &Ast, schema: &DFSchema, failure: Failure) -> Failure {
    if failure.code != Code::TypeMismatch || failure.hint.is_some() {
        return failure;
    }
    let type_of =
        |ast: &Ast| plan(ast, schema).map(|planned| sql_type(&planned.data_type)).unwrap_or_default();
    let message = match part {
        Ast::BinaryOp { left, op, right } => {
            format!(
                "`{}` does not take {} and {}",
                op.to_string().to_lowercase(),
                type_of(left),
                type_of(right)
            )
        }
        Ast::UnaryOp { op, expr } => {
            format!("`{}` does not take {}", op.to_string().to_lowercase(), type_of(expr))
        }
        Ast::InList { .. } | Ast::Between { .. } => "these have different types".to_owned(),
        Ast::Like { expr, .. } | Ast::ILike { expr, .. } | Ast::SimilarTo { expr, .. } => {
            format!("patterns are for text, not for {}", type_of(expr))
        }
        Ast::Cast { expr, data_type, .. } => format!("a {} cannot be cast to {data_type}", type_of(expr)),
        Ast::Function(function) => {
            let name = function.name.to_string();
            let arguments: Vec<String> =
                operands(part).unwrap_or_default().into_iter().map(type_of).collect();
            format!("`{name}` does not take ({})", arguments.join(", "))
        }
        _ => return failure,
    };
    Failure { message, ..failure }
}

/// DataFusion would compare text with numbers by casting one to the other, and fail or surprise at run time. Literals are
/// fine: their cast happens here.
fn refuse_text_arithmetic(expr: &Logical, schema: &DFSchema) -> Result<(), Failure> {
    let mut failure = None;
    expr.apply(|expr| {
        if let Logical::BinaryExpr(binary) = expr {
            let mixes = mixes_text(&binary.left, &binary.right, binary.op, schema)?
                || mixes_text(&binary.right, &binary.left, binary.op, schema)?;
            if mixes {
                let (left, right) = (binary.left.get_type(schema)?, binary.right.get_type(schema)?);
                let op = binary.op.to_string().to_lowercase();
                failure = Some(Failure {
                    code: Code::TypeMismatch,
                    message: format!("`{op}` does not take {} and {}", sql_type(&left), sql_type(&right)),
                    hint: Some(
                        "cast one side: `cast(… as bigint)`, or `try_cast` for NULL where it does not fit"
                            .to_owned(),
                    ),
                });
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    failure.map_or(Ok(()), Err)
}

fn mixes_text(text: &Logical, other: &Logical, op: Operator, schema: &DFSchema) -> PlanResult<bool> {
    if matches!(op, Operator::StringConcat | Operator::And | Operator::Or)
        || matches!(text, Logical::Literal(..))
    {
        return Ok(false);
    }
    let other = other.get_type(schema)?;
    Ok(text.get_type(schema)?.is_string() && !other.is_string() && !other.is_null())
}

/// Arithmetic and casts of constants are evaluated here: what fails now would fail for every record, and the simplifier
/// would let it wrap around.
fn refuse_failing_constants(expr: &Logical) -> Result<(), Failure> {
    let empty = DFSchema::empty();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let mut failure = None;
    expr.apply(|part| {
        if matches!(part, Logical::Literal(..)) || !is_constant(part) {
            return Ok(TreeNodeRecursion::Continue);
        }
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
        if let Err(error) = physical(part, &empty).and_then(|physical| physical.evaluate(&row)) {
            let message = format!("this fails for every record: {}", readable(&error));
            failure = Some(Failure { code: Code::AlwaysFails, message, hint: None });
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    failure.map_or(Ok(()), Err)
}

fn is_constant(expr: &Logical) -> bool {
    match expr {
        Logical::Literal(..) => true,
        Logical::BinaryExpr(binary) => is_constant(&binary.left) && is_constant(&binary.right),
        Logical::Cast(cast) => is_constant(&cast.expr),
        Logical::Negative(inner) => is_constant(inner),
        _ => false,
    }
}

/// The physical expression, with arithmetic that fails where it overflows.
fn physical(logical: &Logical, schema: &DFSchema) -> PlanResult<Arc<dyn PhysicalExpr>> {
    let planned =
        create_physical_expr(logical, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let arrow = schema.as_arrow();
    let checked = planned.transform_up(|expr| {
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            return Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _));
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            let data_type = negative.data_type(arrow)?;
            if data_type.is_integer() {
                // 0 - x, as the negation of the smallest integer would wrap.
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
                return Ok(Transformed::yes(Arc::new(minus.with_fail_on_overflow(true)) as _));
            }
        }
        Ok(Transformed::no(expr))
    })?;
    Ok(checked.data)
}

/// A schema of the columns that an expression names. (All of them have types: the check has seen to it.)
fn schema_of(scope: &Scope, columns: &BTreeSet<String>) -> PlanResult<DFSchema> {
    let fields: Vec<Field> = columns
        .iter()
        .filter_map(|name| scope.find(name))
        .filter_map(|column| Some(Field::new(&column.name, column.data_type?, column.nullable)))
        .collect();
    DFSchema::try_from(Schema::new(fields))
}

/// What went wrong, without the names of libraries.
pub(super) fn readable(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let mut text = text.trim();
    for prefix in [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Compute error: ",
        "Schema error: ",
        "SQL error: ",
        "Internal error: ",
        "Invalid argument error: ",
        "Parser error: ",
        "Arithmetic overflow: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text =
        text.split("\n").next().unwrap_or_default().split(" No function matches").next().unwrap_or_default();
    let text = text.split(".This issue was likely caused by").next().unwrap_or_default();
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
