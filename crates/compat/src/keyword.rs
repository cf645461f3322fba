//! What is known of the keywords of JSON Schema.

/// How a keyword is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Says nothing about which documents are valid.
    Annotation,
    /// One schema.
    Schema,
    /// Schemas in an order that means nothing.
    Choice,
    /// Schemas in an order that means something.
    List,
    /// Schemas by name.
    Map,
    /// Texts in an order that means nothing.
    Set,
    Reference,
    /// Plain data.
    Plain,
    /// Not a keyword that is known.
    Unknown,
}

pub(crate) fn shape(keyword: &str) -> Shape {
    match keyword {
        "$schema" | "$id" | "$comment" | "$defs" | "definitions" | "title" | "description" | "default" | "examples"
        | "deprecated" | "readOnly" | "writeOnly" | "$vocabulary" => Shape::Annotation,
        // Extensions, as OpenAPI and AsyncAPI have them, are for people and generators.
        _ if keyword.starts_with("x-") => Shape::Annotation,
        "items"
        | "additionalProperties"
        | "propertyNames"
        | "not"
        | "if"
        | "then"
        | "else"
        | "contains"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "contentSchema" => Shape::Schema,
        "allOf" | "anyOf" | "oneOf" => Shape::Choice,
        "prefixItems" => Shape::List,
        "properties" | "patternProperties" | "dependentSchemas" => Shape::Map,
        "required" | "enum" => Shape::Set,
        "$ref" => Shape::Reference,
        "type" | "const" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf"
        | "minLength" | "maxLength" | "pattern" | "format" | "minItems" | "maxItems" | "uniqueItems"
        | "minContains" | "maxContains" | "minProperties" | "maxProperties" | "dependentRequired"
        | "contentEncoding" | "contentMediaType" => Shape::Plain,
        _ => Shape::Unknown,
    }
}

pub(crate) fn is_annotation(keyword: &str) -> bool {
    shape(keyword) == Shape::Annotation
}
