//! Codes of diagnostics, from their declaration.

use onceflow_engine::diagnostics::Code;

use super::cell;

pub(super) fn page() -> String {
    let row = |code: &Code| format!("| {code} | {} |\n", cell(code.about()));
    let rows: String = Code::ALL.iter().map(row).collect();
    format!(
        "# Mistakes in pipeline files\n\n\
         `onceflow validate` prints every mistake of a file with its place, the line, a code from this list and, where there is one, \
         a way out. A code is never used again for another mistake.\n\n\
         | code | means |\n| --- | --- |\n{rows}"
    )
}
