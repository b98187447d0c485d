//! The examples that `framehook plugin new` makes: their own tests.

#[path = "../../cli/template/both.rs"]
mod both;
#[path = "../../cli/template/post.rs"]
mod post;
#[path = "../../cli/template/pre.rs"]
mod pre;
