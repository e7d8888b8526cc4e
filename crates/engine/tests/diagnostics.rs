//! What is said about mistakes: each file of `diagnostics/` with everything that is printed for it, and damaged files by the
//! thousand, for which nothing matters but that something is said.

use onceflow_engine::config::{self, Defaults, Environment};

/// A few variables, one file and one credential.
struct Surroundings;

impl Environment for Surroundings {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "TOPIC" => Some("from-the-environment".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        match path {
            "/run/secret" => Ok("dont-tell 8f3a\n".to_owned()),
            _ => Err("no such file".to_owned()),
        }
    }

    fn credential(&self, name: &str) -> Result<String, String> {
        match name {
            "secret" => Ok("dont_tell(7)".to_owned()),
            _ => Err("no such credential".to_owned()),
        }
    }
}

#[test]
fn golden() {
    let directory = std::path::absolute("tests/diagnostics").unwrap();
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "where are the files?");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&directory);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let found =
                config::compile(&name, &text, &Defaults::default(), &Surroundings).map(|_| ()).unwrap_err();
            assert!(!found.to_string().contains("tell"), "a secret: {found}");
            insta::assert_snapshot!(name.trim_end_matches(".yaml"), found.to_string());
        }
    });
}

/// Cuts, doubles and replaces bytes of a valid file.
fn damaged(text: &str) -> impl Iterator<Item = String> {
    let at = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
    at.flat_map(move |at| {
        let (before, after) = text.split_at(at);
        let rest = after.chars().next().map_or("", |c| &after[c.len_utf8()..]);
        let noise = ["", ":", "\t", "\n", "'", "{", "]", "(", "*", "\u{0}", "é", "${", "9"];
        let noise = noise[at % noise.len()];
        [
            before.to_owned(),
            format!("{before}{rest}"),
            format!("{before}{noise}{rest}"),
            format!("{before}{noise}{after}"),
        ]
    })
}

#[test]
fn no_text_makes_the_compiler_panic() {
    for text in [include_str!("pipelines/orders-per-user.yaml"), include_str!("pipelines/orders-clean.yaml")]
    {
        for text in damaged(text) {
            if let Err(found) = config::compile("f", &text, &Defaults::default(), &Surroundings) {
                assert!(found.iter().next().is_some(), "refused without a word:\n{text}");
                assert!(found.to_string().starts_with("f:"));
            }
        }
    }
}
