//! JSON Schema as far as ours goes; it panics at a keyword that it does not know, so that none is passed over.

use regex::Regex;
use serde_json::Value;

/// What is wrong with `instance`, each mistake with its place.
pub fn mistakes(schema: &Value, instance: &Value) -> Vec<String> {
    let mut found = vec![];
    Validator { root: schema }.check(schema, instance, "", &mut found);
    found
}

struct Validator<'s> {
    root: &'s Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, instance: &Value, at: &str, found: &mut Vec<String>) {
        let Value::Object(keywords) = schema else { panic!("{at}: a schema is an object, not {schema}") };
        for (keyword, wanted) in keywords {
            let holds = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                    self.check(self.root.pointer(pointer).expect(pointer), instance, at, found);
                    true
                }
                "type" => match wanted {
                    Value::Array(types) => types.iter().any(|wanted| is_of_type(wanted, instance)),
                    wanted => is_of_type(wanted, instance),
                },
                "const" => instance == wanted,
                "enum" => wanted.as_array().unwrap().contains(instance),
                "pattern" => instance
                    .as_str()
                    .is_none_or(|text| Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text)),
                "minLength" => instance
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 >= wanted.as_u64().unwrap()),
                "minimum" => instance.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
                "maximum" => instance.as_f64().is_none_or(|number| number <= wanted.as_f64().unwrap()),
                "minItems" => {
                    instance.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap())
                }
                "anyOf" => wanted.as_array().unwrap().iter().any(|schema| self.is_valid(schema, instance)),
                "items" => {
                    for (i, item) in instance.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, item, &format!("{at}/{i}"), found);
                    }
                    true
                }
                "properties" => {
                    for (name, value) in instance.as_object().into_iter().flatten() {
                        if let Some(schema) = wanted.get(name) {
                            self.check(schema, value, &format!("{at}/{name}"), found);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = keywords.get("properties").and_then(Value::as_object);
                    let others = instance.as_object().into_iter().flatten();
                    for (name, value) in
                        others.filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)))
                    {
                        match wanted {
                            Value::Bool(allowed) => {
                                if !allowed {
                                    found.push(format!("{at}: unknown key {name}"));
                                }
                            }
                            schema => self.check(schema, value, &format!("{at}/{name}"), found),
                        }
                    }
                    true
                }
                "propertyNames" => {
                    let names =
                        instance.as_object().into_iter().flatten().map(|(name, _)| name.clone().into());
                    names.into_iter().all(|name: Value| self.is_valid(wanted, &name))
                }
                "required" => wanted.as_array().unwrap().iter().all(|key| has(instance, key)),
                "dependentRequired" => wanted.as_object().unwrap().iter().all(|(key, needed)| {
                    instance.get(key).is_none()
                        || needed.as_array().unwrap().iter().all(|key| has(instance, key))
                }),
                unknown => panic!("the schema uses `{unknown}`, which this validator does not know"),
            };
            if !holds {
                found.push(format!("{at}: {keyword} {wanted} does not hold for {instance}"));
            }
        }
    }

    fn is_valid(&self, schema: &Value, instance: &Value) -> bool {
        let mut found = vec![];
        self.check(schema, instance, "", &mut found);
        found.is_empty()
    }
}

fn has(instance: &Value, key: &Value) -> bool {
    !instance.is_object() || instance.get(key.as_str().unwrap()).is_some()
}

fn is_of_type(wanted: &Value, instance: &Value) -> bool {
    match wanted.as_str().unwrap() {
        "object" => instance.is_object(),
        "array" => instance.is_array(),
        "string" => instance.is_string(),
        "number" => instance.is_number(),
        "integer" => instance.is_u64() || instance.is_i64(),
        "boolean" => instance.is_boolean(),
        unknown => panic!("type {unknown}"),
    }
}
