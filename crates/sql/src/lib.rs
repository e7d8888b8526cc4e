//! DataFusion's SQL planner behind one function that is not generic.
//!
//! `SqlToRel` is generic over what it may know. Whoever names a type for that compiles all of SQL, which takes two minutes: so this
//! is a crate of its own that hardly ever changes, and the engine compiles in a third of the time.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, Result as PlanResult, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{DataType as SqlType, Expr as Ast};

/// All scalar functions, by every name they have.
pub static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for function in datafusion_functions::all_default_functions() {
        for alias in function.aliases() {
            functions.insert(alias.clone(), Arc::clone(&function));
        }
        functions.insert(function.name().to_owned(), function);
    }
    functions
});

/// The logical expression that `ast` means over the columns of `schema`. Identifiers are case-sensitive, numbers with a point are
/// decimals, `timestamp` has milliseconds.
///
/// # Errors
/// DataFusion's, for what it cannot plan.
pub fn plan_expression(ast: &Ast, schema: &DFSchema) -> PlanResult<Expr> {
    let options = ParserOptions::new()
        .with_enable_ident_normalization(false)
        .with_parse_float_as_decimal(true)
        .with_map_string_types_to_utf8view(false)
        .with_support_varchar_with_length(false);
    let planner = SqlToRel::new_with_options(&*PROVIDER, options);
    planner.sql_to_expr(ast.clone(), schema, &mut PlannerContext::new())
}

static PROVIDER: LazyLock<Provider> = LazyLock::new(|| Provider {
    options: ConfigOptions::default(),
    planners: vec![
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
    ],
});

/// What DataFusion's planner may know: scalar functions, and nothing else.
struct Provider {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl ContextProvider for Provider {
    fn get_table_source(&self, name: TableReference) -> PlanResult<Arc<dyn TableSource>> {
        plan_err!("there is no table {name}")
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Timestamps))
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        FUNCTIONS.get(&name.to_lowercase()).cloned()
    }
    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }
    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        vec![]
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        vec![]
    }
    fn udaf_names(&self) -> Vec<String> {
        vec![]
    }
    fn udwf_names(&self) -> Vec<String> {
        vec![]
    }
}

/// `timestamp` has milliseconds here: nanoseconds would not reach beyond the year 2262.
#[derive(Debug)]
struct Timestamps;

impl TypePlanner for Timestamps {
    fn plan_type_field(&self, sql_type: &SqlType) -> PlanResult<Option<FieldRef>> {
        let data_type = match sql_type {
            SqlType::Timestamp(None | Some(3), _) => DataType::Timestamp(TimeUnit::Millisecond, None),
            SqlType::Timestamp(Some(6), _) => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
