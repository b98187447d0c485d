//! Types that stand in the API's description only: for values whose Rust type says less than is checked.

#![expect(dead_code, reason = "nobody makes such a value: its description is what is used")]

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Discriminator, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, schema::AdditionalProperties, schema::Type,
    },
};

use crate::{
    artifact::{ArtifactRef, Manifest, ModelManifest, PluginManifest, VideoManifest},
    model_use::{MAX_MODELS, MODEL_NAME, WrittenModelUse},
    placement::{MAX_LABEL, MAX_LABEL_VALUE, MAX_LABELS},
    source_url::{MAX_LENGTH, SourceUrl},
    spec::{Lanes, MAX_FPS, MAX_LANES, Sampling, SourceSpec},
};

type Schemas = Vec<(String, RefOr<Schema>)>;

/// What an artifact is called.
#[derive(ToSchema)]
#[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "street")]
pub struct ArtifactName(String);

/// Which upload of that name.
#[derive(ToSchema)]
#[schema(pattern = "^[A-Za-z0-9+][A-Za-z0-9+._-]{0,62}$", example = "1")]
pub struct Version(String);

/// `[x, y]`.
#[derive(ToSchema)]
#[schema(min_items = 2, max_items = 2)]
pub struct Point([f32; 2]);

/// The values of an input that are always the same, in row-major order.
#[derive(ToSchema)]
#[schema(max_items = 4096)]
pub struct Numbers(Vec<f64>);

/// Names with a value each.
pub struct Labels;

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let value = Schema::from(text().max_length(Some(MAX_LABEL_VALUE)));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(text().min_length(Some(1)).max_length(Some(MAX_LABEL))))
            .additional_properties(Some(RefOr::T(value)))
            .max_properties(Some(MAX_LABELS))
            .into()
    }
}

impl ToSchema for Labels {}

/// Further models by their names.
pub struct Models;

impl PartialSchema for Models {
    fn schema() -> RefOr<Schema> {
        let either = OneOfBuilder::new()
            .item(Ref::from_schema_name(ArtifactRef::name()))
            .item(Ref::from_schema_name("ModelUse"));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(MODEL_NAME))))
            .additional_properties(Some(RefOr::T(Schema::from(either))))
            .max_properties(Some(MAX_MODELS))
            .into()
    }
}

impl ToSchema for Models {
    fn schemas(schemas: &mut Schemas) {
        schemas.push((ArtifactRef::name().into(), ArtifactRef::schema()));
        schemas.push(("ModelUse".into(), WrittenModelUse::schema()));
        WrittenModelUse::schemas(schemas);
    }
}

/// An object with any fields.
pub struct AnyObject;

impl PartialSchema for AnyObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .into()
    }
}

impl ToSchema for AnyObject {}

impl PartialSchema for ArtifactRef {
    fn schema() -> RefOr<Schema> {
        let pattern = "^(sha256:[0-9a-f]{64}|[a-z0-9][a-z0-9._-]{0,62}(@[A-Za-z0-9+][A-Za-z0-9+._-]{0,62})?)$";
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(pattern))
            .description(Some("`name@version`, `name` (its newest upload) or `sha256:...`"))
            .into()
    }
}

impl ToSchema for ArtifactRef {}

/// An object with this one field.
fn only(title: &str, field: &str, value: RefOr<Schema>) -> Schema {
    ObjectBuilder::new()
        .title(Some(title))
        .property(field, value)
        .required(field)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .into()
}

impl PartialSchema for SourceSpec {
    fn schema() -> RefOr<Schema> {
        let path = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^/"))
            .max_length(Some(4096))
            .description(Some("An absolute path on the runner, inside one of its allowed source folders."));
        OneOfBuilder::new()
            .item(only("VideoSource", "video", Ref::from_schema_name(ArtifactRef::name()).into()))
            .item(only("FileSource", "file", Schema::from(path).into()))
            .item(only("UrlSource", "url", Ref::from_schema_name(SourceUrl::name()).into()))
            .description(Some("Where the frames come from: exactly one of these."))
            .into()
    }
}

impl ToSchema for SourceSpec {
    fn schemas(schemas: &mut Schemas) {
        schemas.push((ArtifactRef::name().into(), ArtifactRef::schema()));
        schemas.push((SourceUrl::name().into(), SourceUrl::schema()));
    }
}

/// By hand, since a derive gives the value of a variant no limits.
impl PartialSchema for Lanes {
    fn schema() -> RefOr<Schema> {
        let auto = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["auto"]))
            .description(Some("The runner's cores, shared evenly among its workers."));
        let fixed = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_LANES))
            .description(Some("So many."));
        OneOfBuilder::new()
            .item(auto)
            .item(fixed)
            .description(Some("How many frames of a scenario are in the model at a time, as far as the worker's memory reaches. What it finds does not depend on it."))
            .into()
    }
}
impl ToSchema for Lanes {}

impl PartialSchema for Sampling {
    fn schema() -> RefOr<Schema> {
        let every = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(u32::MAX))
            .description(Some("Those whose number is a multiple of this: 1 is all of them."));
        let fps = ObjectBuilder::new()
            .schema_type(Type::Number)
            .exclusive_minimum(Some(0))
            .maximum(Some(MAX_FPS))
            .description(Some(
                "At most so many a second: the first one of each span of 1/fps seconds, counted from time 0.",
            ));
        OneOfBuilder::new()
            .item(only("EveryNthFrame", "every", Schema::from(every).into()))
            .item(only("FramesPerSecond", "fps", Schema::from(fps).into()))
            .description(Some("Which of the frames of a source: one of these. Frames keep the number and the time that they have in it."))
            .into()
    }
}

impl ToSchema for Sampling {}

/// The schema of a manifest with the field that tells its kind.
fn of_kind(kind: &str, manifest: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = manifest else { return manifest };
    let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind]));
    object.properties.insert("kind".into(), Schema::from(kind).into());
    object.required.push("kind".into());
    Schema::Object(object).into()
}

const MANIFESTS: [(&str, &str); 3] =
    [("plugin", "PluginManifest"), ("model", "ModelManifest"), ("video", "VideoManifest")];

/// Plain schemas and what tells them apart: generators lose what a derive makes of a tagged enum.
impl PartialSchema for Manifest {
    fn schema() -> RefOr<Schema> {
        let mapping = MANIFESTS.map(|(kind, name)| (kind, format!("#/components/schemas/{name}")));
        let one_of = OneOfBuilder::new().discriminator(Some(Discriminator::with_mapping("kind", mapping)));
        MANIFESTS.iter().fold(one_of, |all, (_, name)| all.item(Ref::from_schema_name(*name))).into()
    }
}

impl ToSchema for Manifest {
    fn schemas(schemas: &mut Schemas) {
        let of = [PluginManifest::schema(), ModelManifest::schema(), VideoManifest::schema()];
        for ((kind, name), schema) in MANIFESTS.into_iter().zip(of) {
            schemas.push((name.into(), of_kind(kind, schema)));
        }
        PluginManifest::schemas(schemas);
        ModelManifest::schemas(schemas);
    }
}

impl PartialSchema for SourceUrl {
    fn schema() -> RefOr<Schema> {
        let about = "A recording that the runner fetches over `http` or `https`. User info and query are secret: they are \
                     sealed, and never shown again.";
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[Hh][Tt][Tt][Pp][Ss]?://"))
            .max_length(Some(MAX_LENGTH))
            .description(Some(about))
            .into()
    }
}

impl ToSchema for SourceUrl {}
