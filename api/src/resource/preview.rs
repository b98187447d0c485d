//! `GET /model/{name}/{version}/preview.jpg`: what a frame of a video looks like as the input of a
//! model.
//!
//! Invariant: this process decodes nothing. The picture is made in a child, as uploads are judged.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef, Manifest},
    error_code::ErrorCode,
    input::{Anchor, Channels, InputError, InputOptions, Layout, Resize},
};
use serde::{Deserialize, Deserializer, de::Error};
use std::str::FromStr;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App, SharedApp,
    check::{probe, resolve},
    http::{
        extract::{Query, VersionPath},
        problem::{AnyProblem, Problem},
    },
    resource::artifact,
};

/// A frame, and what a scenario would say in `input`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// `name@version`, or `name` for its newest version.
    video: ArtifactRef,
    /// The first frame at this time or later, in microseconds; 0 if absent.
    #[param(minimum = 0)]
    at_us: Option<i64>,
    /// A plugin whose declared options count where none is given here: `name@version` or `name`.
    plugin: Option<ArtifactRef>,
    /// Name of the model's input tensor.
    #[param(max_length = 256)]
    tensor: Option<String>,
    /// Width and height in pixels, such as `640,384`.
    #[serde(default, deserialize_with = "numbers")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,5},[0-9]{1,5}$")]
    size: Option<[u32; 2]>,
    #[param(inline)]
    resize: Option<Resize>,
    #[param(inline)]
    anchor: Option<Anchor>,
    #[param(inline)]
    channels: Option<Channels>,
    /// Value of the padding of a letterbox.
    #[param(maximum = 255)]
    pad: Option<u8>,
    scale: Option<f32>,
    /// Three numbers, such as `0.485,0.456,0.406`.
    #[serde(default, deserialize_with = "numbers")]
    #[param(value_type = Option<String>, pattern = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?(,-?[0-9]{1,9}(\.[0-9]{1,9})?){2}$")]
    mean: Option<[f32; 3]>,
    /// Three numbers, such as `0.229,0.224,0.225`.
    #[serde(default, deserialize_with = "numbers")]
    #[param(value_type = Option<String>, pattern = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?(,-?[0-9]{1,9}(\.[0-9]{1,9})?){2}$")]
    std: Option<[f32; 3]>,
    #[param(inline)]
    layout: Option<Layout>,
}

/// A list of numbers in a query string: commas between them.
fn numbers<'de, D: Deserializer<'de>, T: FromStr, const N: usize>(text: D) -> Result<Option<[T; N]>, D::Error> {
    let text = String::deserialize(text)?;
    let read: Option<Vec<T>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    let refused = || {
        let unfit = text.escape_debug();
        D::Error::custom(format_args!("invalid value `{unfit}`, expected {N} numbers with commas between them"))
    };
    read.and_then(|numbers| numbers.try_into().ok()).map(Some).ok_or_else(refused)
}

/// The bytes of a picture.
#[derive(ToSchema)]
#[schema(format = Binary)]
#[expect(dead_code, reason = "only its description is used")]
struct Jpeg(String);

/// What a frame of a video looks like as the input of this model
///
/// On the left is the frame, on the right the tensor: letterbox and padding as the model gets them,
/// its first channel as red, its second as green, its third as blue, so a model that takes BGR is
/// shown with red and blue exchanged. Black and white of a frame become the two ends of the
/// tensor's range over all channels; these ends are shown as 0 and 255, what lies between in
/// proportion, and what an integer type cuts off as it is cut off. The text below says which values
/// there are. An input whose width or height has more than 1280 pixels is shown smaller.
///
/// The parameters are those of `input` in a scenario. What is said neither here nor by `plugin` is
/// the default, as in a scenario. Other inputs of the model make no difference.
#[utoipa::path(get, path = "/model/{name}/{version}/preview.jpg", tag = "/model", operation_id = "preview_model",
    params(("name" = framehook_core::schemas::ArtifactName, Path), ("version" = framehook_core::schemas::Version, Path), Parameters),
    responses((status = 200, description = "The picture", body = inline(Jpeg), content_type = "image/jpeg"), AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    path: VersionPath,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let at_us = parameters.at_us.unwrap_or_default();
    if at_us < 0 {
        return Err(Problem::parameter("at_us", format!("`at_us` is {at_us}")).expected("0 or more microseconds"));
    }
    let model = artifact::stored(&app, ArtifactKind::Model, path).await?;
    let Manifest::Model(model) = model.manifest else { return Err(Problem::internal("a model is none")) };
    let video = resolve::named(&app, ArtifactKind::Video, &parameters.video, "video").await?;
    let declared = match &parameters.plugin {
        Some(plugin) => declared(&app, plugin).await?,
        None => InputOptions::default(),
    };
    let input = parameters.options().or(declared).resolve_image(&model.inputs).map_err(mismatch)?;
    let file = app.blobs.verified(&video.digest).await?;
    let jpeg = probe::preview(&app, &file, at_us, &input).await?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response())
}

/// What a plugin says of the models that it reads.
async fn declared(app: &App, plugin: &ArtifactRef) -> Result<InputOptions, Problem> {
    let plugin = resolve::named(app, ArtifactKind::Plugin, plugin, "plugin").await?;
    Ok(if let Manifest::Plugin(plugin) = plugin.manifest { plugin.input } else { InputOptions::default() })
}

impl Parameters {
    fn options(self) -> InputOptions {
        let Self { tensor, size, resize, anchor, channels, pad, scale, mean, std, layout, .. } = self;
        InputOptions {
            tensor,
            size,
            resize,
            anchor,
            channels,
            pad,
            scale,
            mean,
            std,
            layout,
            ..InputOptions::default()
        }
    }
}

/// Where a scenario has `input.size`, the query string has `size`.
fn mismatch(error: InputError) -> Problem {
    let (field, message) = (error.field.trim_start_matches("input."), error.message.replace("`input.", "`"));
    Problem::new(ErrorCode::ModelInputMismatch, message).field(field)
}
