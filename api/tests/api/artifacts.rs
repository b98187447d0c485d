use axum::{
    body::{Body, Bytes},
    http::Request,
};
use framehook_api::Signing;
use framehook_core::ids::Digest;
use framehook_infra::{
    blobs::Shared,
    signing::{SigningKey, TrustedKeys},
};
use framehook_tests::disk::SmallDisk;
use futures::stream;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::app::{Answer, TestApp, files_below, model, plugin, smallest, video};

async fn multipart(app: &TestApp, uri: &str, fields: &[(&str, &str)]) -> Answer {
    let mut body = String::new();
    for (name, value) in fields {
        let file = if *name == "file" { "; filename=\"f.bin\"" } else { "" };
        body += &format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n");
    }
    body += "--X--\r\n";
    let request = Request::post(uri).header("Content-Type", "multipart/form-data; boundary=X");
    app.send(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn uploads_are_stored_listed_read_and_deleted() {
    let app = TestApp::new().await;
    for (kind, upload, name, version, verdict) in [
        ("model", "/model?name=m&version=2", "m", "2", model(&[1, 3, 8, 8])),
        ("video", "/video?name=v", "v", "1", video(3)),
        ("plugin", "/plugin", "yolo", "1.0.0", plugin("yolo", false, true, json!({}))),
    ] {
        let view = app.upload(upload, &verdict).await.ok(201);
        assert_eq!((&view["kind"], &view["name"], &view["version"]), (&json!(kind), &json!(name), &json!(version)));
        assert_eq!(view["size_bytes"], verdict.to_string().len());
        assert_eq!(view["manifest"]["kind"], kind);
        assert_eq!(app.upload(upload, &verdict).await.ok(200), view, "the same again");
        let one = format!("/{kind}/{name}/{version}");
        assert_eq!(app.get(&one).await.ok(200), view);
        let mut item = view.clone();
        item.as_object_mut().unwrap().remove("manifest");
        assert_eq!(app.get(&format!("/{kind}")).await.ok(200), json!({"items": [item], "next_cursor": null}));
        let digest = view["digest"].as_str().unwrap().parse().unwrap();
        assert_eq!(std::fs::read(app.blobs.path(&digest)).unwrap(), verdict.to_string().into_bytes());
        // What was damaged on the disk is mended by the same upload.
        std::fs::write(app.blobs.path(&digest), "damaged").unwrap();
        app.upload(upload, &verdict).await.ok(200);
        assert_eq!(std::fs::read(app.blobs.path(&digest)).unwrap(), verdict.to_string().into_bytes());

        app.call("DELETE", &one).await.ok(204);
        app.call("DELETE", &one).await.problem(404, "artifact_not_found");
        app.get(&one).await.problem(404, "artifact_not_found");
        assert!(!app.blobs.path(&digest).exists(), "the blob went with its last name");
    }
    assert_eq!(app.blob_files(), 0);
}

#[tokio::test]
async fn a_version_keeps_its_content_and_a_blob_stays_while_it_has_a_name() {
    let app = TestApp::new().await;
    let first = app.upload("/video?name=v", &video(1)).await.ok(201);
    let problem = app.upload("/video?name=v", &video(2)).await.problem(409, "version_exists");
    assert!(problem["detail"].as_str().unwrap().contains(first["digest"].as_str().unwrap()));
    app.upload("/plugin", &plugin("p", true, true, json!({}))).await.ok(201);
    app.upload("/plugin", &plugin("p", true, false, json!({}))).await.problem(409, "version_exists");
    assert_eq!(app.blob_files(), 2, "what was refused left nothing");

    app.upload("/video?name=other", &video(1)).await.ok(201);
    let digest = first["digest"].as_str().unwrap().parse().unwrap();
    app.call("DELETE", "/video/v/1").await.ok(204);
    assert!(app.blobs.path(&digest).exists());
    app.call("DELETE", "/video/other/1").await.ok(204);
    assert!(!app.blobs.path(&digest).exists());
}

#[test]
fn a_full_shared_store_refuses_uploads_until_there_is_room() {
    let name = "artifacts::a_full_shared_store_refuses_uploads_until_there_is_room";
    let Some(disk) = SmallDisk::of(name, 1 << 20, &[]) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let shared = disk.folder.join("shared");
        let app =
            TestApp::sharing(Some(Shared { url: format!("file://{}", shared.display()), cache_bytes: u64::MAX })).await;
        let before = app.upload("/video?name=before", &video(1)).await.ok(201);
        disk.fill_but(0);
        app.upload("/video?name=v", &video(2)).await.problem(507, "storage_full");
        app.upload("/video?name=before", &video(1)).await.problem(507, "storage_full");
        let there = app.get("/video").await.ok(200)["items"].clone();
        assert_eq!((there.as_array().unwrap().len(), &there[0]["digest"]), (1, &before["digest"]));
        assert_eq!((files_below(&shared), app.blob_files()), (1, 1), "nothing is lost, nothing is left");
        disk.empty();
        app.upload("/video?name=v", &video(2)).await.ok(201);
        assert_eq!((files_below(&shared), app.blob_files()), (2, 2));
    });
}

#[tokio::test]
async fn what_a_scenario_needs_is_not_deleted() {
    let app = TestApp::stocked().await;
    let id = app.init(&smallest()).await.ok(200)["id"].clone();
    let problem = app.call("DELETE", "/model/m/1").await.problem(409, "artifact_in_use");
    assert!(problem["detail"].as_str().unwrap().contains(id.as_str().unwrap()));
    app.get("/model/m/1").await.ok(200);
}

#[tokio::test]
async fn a_form_works_like_a_raw_body() {
    let app = TestApp::new().await;
    let file = video(5).to_string();
    // In whatever order the fields come.
    let view = multipart(&app, "/video", &[("file", &file), ("name", "v"), ("version", "7")]).await.ok(201);
    assert_eq!((&view["name"], &view["version"]), (&json!("v"), &json!("7")));
    multipart(&app, "/video?name=w", &[("file", &file)]).await.ok(201);
    multipart(&app, "/plugin", &[("file", &plugin("p", true, true, json!({})).to_string())]).await.ok(201);

    for (fields, code, field) in [
        (vec![("name", "v")], "invalid_upload", "file"),
        (vec![("file", &*file), ("file", "x"), ("name", "v")], "invalid_upload", "file"),
        (vec![("file", &*file), ("name", "v"), ("color", "x")], "invalid_upload", "color"),
        (vec![("file", &*file)], "invalid_parameter", "name"),
        (vec![("file", &*file), ("name", "../v")], "invalid_parameter", "name"),
        (vec![("file", &*file), ("name", "v"), ("version", "a/b")], "invalid_parameter", "version"),
    ] {
        let problem = multipart(&app, "/video", &fields).await.problem(400, code);
        assert_eq!(problem["field"], field, "{problem}");
    }
    let request = Request::post("/video?name=z").header("Content-Type", "multipart/form-data; boundary=X");
    let cut = request.body(Body::from("--X\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc")).unwrap();
    app.send(cut).await.problem(400, "invalid_upload");
    assert_eq!(app.blob_files(), 2);
}

#[tokio::test]
async fn parameters_are_checked_before_the_bytes_are_taken() {
    let app = TestApp::new().await;
    for (uri, field) in [
        ("/model?name=UPPER", "name"),
        ("/model?name=a&version=..", "version"),
        ("/model?title=a", "title"),
        ("/model", "name"),
        ("/plugin?name=a", "name"),
    ] {
        let problem = app.upload(uri, &model(&[1, 3, 8, 8])).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], field, "{problem}");
    }
    app.get("/model/A/1").await.problem(400, "invalid_parameter");
    app.get("/model?colour=red").await.problem(400, "invalid_parameter");
    assert_eq!(app.blob_files(), 0);
}

#[tokio::test]
async fn an_upload_over_the_cap_is_refused_by_its_length_and_by_its_bytes() {
    let app = TestApp::new().await;
    // One byte of 5000 announced: only the announcement is looked at.
    let announced = Request::post("/model?name=m").header("Content-Length", "5000").body(Body::from("x")).unwrap();
    let problem = app.send(announced).await.problem(413, "upload_too_large");
    assert!(problem["detail"].as_str().unwrap().contains("4096"), "{problem}");
    let chunks = || stream::iter((0..10).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1000]))));
    for (uri, setting) in
        [("/model?name=m", "max_model_mib"), ("/video?name=v", "max_video_mib"), ("/plugin", "max_plugin_mib")]
    {
        let problem = app.post(uri, Body::from_stream(chunks())).await.problem(413, "upload_too_large");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("4096 bytes") && detail.contains(setting), "{detail}");
    }
    multipart(&app, "/video?name=v", &[("file", &"x".repeat(5000))]).await.problem(413, "upload_too_large");
    assert_eq!(app.blob_files(), 0);
}

#[tokio::test]
async fn an_aborted_or_empty_upload_leaves_nothing() {
    let app = TestApp::new().await;
    let chunks = [Ok(Bytes::from("abc")), Err(std::io::Error::other("connection reset"))];
    app.post("/video?name=v", Body::from_stream(stream::iter(chunks))).await.problem(400, "invalid_upload");
    app.post("/video?name=v", "").await.problem(400, "invalid_upload");

    // A client that goes away while its upload is under way: the handler is dropped where it stands.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let pending = stream::once(async move {
        sender.send(()).unwrap();
        Ok::<_, std::io::Error>(Bytes::from("abc"))
    });
    let body = Body::from_stream(futures::StreamExt::chain(pending, stream::pending()));
    tokio::select! {
        answer = app.post("/video?name=v", body) => panic!("{}", answer.text()),
        started = receiver => started.unwrap(),
    }
    assert_eq!(app.blob_files(), 0);
    assert_eq!(app.get("/video").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn an_unusable_file_is_refused_with_the_reason_and_harms_nothing() {
    let app = TestApp::new().await;
    for (uri, code) in
        [("/model?name=m", "invalid_model"), ("/video?name=v", "invalid_video"), ("/plugin", "invalid_plugin")]
    {
        let findings = json!({"findings": [{"code": "a", "message": "first"}, {"code": "b", "message": "second"}]});
        for (content, words) in [
            (
                json!({"findings": [{"code": "damaged", "message": "it is damaged"}]}).to_string(),
                "damaged: it is damaged",
            ),
            (findings.to_string(), "a: first; b: second"),
            ("crash".into(), "signal: 11"),
            ("no verdict at all".into(), "no verdict"),
        ] {
            let problem = app.post(uri, content).await.problem(422, code);
            assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        }
    }
    let problem = app.post("/plugin", "core").await.problem(422, "invalid_plugin");
    assert_eq!(problem["detail"], "core_module: this is a core module");
    assert_eq!(app.blob_files(), 0);
    app.upload("/video?name=v", &video(1)).await.ok(201);
}

#[tokio::test]
async fn a_preview_is_what_a_child_drew_or_says() {
    let app = TestApp::stocked().await;
    let picture = app.get("/model/m/1/preview.jpg?video=v").await;
    assert_eq!((picture.status.as_u16(), &picture.headers["content-type"]), (200, &"image/jpeg".parse().unwrap()));
    assert_eq!(picture.body, b"\xff\xd8a picture");
    for (pad, status, code, field, words) in [
        (1, 422, "invalid_video", "video", "signal: 11"),
        (2, 400, "invalid_parameter", "at_us", "there is none"),
        (3, 422, "invalid_video", "video", "not_decodable: it is damaged"),
        (4, 422, "invalid_video", "video", "no verdict"),
    ] {
        let problem = app.get(&format!("/model/m/1/preview.jpg?video=v&pad={pad}")).await.problem(status, code);
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
}

#[tokio::test]
async fn a_missing_probe_is_our_fault_and_not_the_files() {
    let app = TestApp::new().await;
    let config = framehook_api::ApiConfig { worker: "/nonexistent/worker".into(), ..app.config.clone() };
    let router = crate::app::router(config, app.store.clone(), app.bus.clone(), app.blobs.clone(), None);
    let app = TestApp { router, ..app };
    let problem = app.upload("/video?name=v", &video(1)).await.problem(500, "internal");
    assert!(problem["instance"].as_str().unwrap().starts_with("urn:uuid:"));
    assert!(!problem["detail"].as_str().unwrap().contains("nonexistent"));
    let lacking =
        json!({"findings": [{"code": "no_onnxruntime", "message": "`/nonexistent/lib.so` cannot be loaded"}]});
    let app = TestApp::new().await;
    let problem = app.upload("/model?name=m", &lacking).await.problem(500, "internal");
    assert!(!problem["detail"].as_str().unwrap().contains("nonexistent"));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let app = TestApp::new().await;
    for (name, version) in [("b", 1), ("a", 1), ("a", 2), ("c", 1)] {
        app.upload(&format!("/video?name={name}&version={version}"), &video(version)).await.ok(201);
    }
    let called = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|a| format!("{}@{}", a["name"].as_str().unwrap(), a["version"].as_str().unwrap())).collect()
    };
    let first = app.get("/video?limit=3").await.ok(200);
    assert_eq!(called(&first), ["a@2", "a@1", "b@1"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let last = app.get(&format!("/video?limit=3&cursor={cursor}")).await.ok(200);
    assert_eq!((called(&last), &last["next_cursor"]), (vec!["c@1".to_owned()], &Value::Null));
    assert_eq!(called(&app.get("/video?name=a").await.ok(200)), ["a@2", "a@1"]);
    for (query, field) in
        [("name=A", "name"), ("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=s1", "cursor"), ("page=2", "page")]
    {
        let problem = app.get(&format!("/video?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], field);
    }
}

#[tokio::test]
async fn racing_uploads_of_one_name_agree() {
    let app = TestApp::new().await;
    let verdicts: Vec<_> = (0..6).map(|n| video(n % 2)).collect();
    let answers = futures::future::join_all(verdicts.iter().map(|v| app.upload("/video?name=v", v))).await;
    let created: Vec<Value> = answers.iter().filter(|a| a.status == 201).map(Answer::json).collect();
    assert_eq!(created.len(), 1);
    for answer in &answers {
        match answer.status.as_u16() {
            200 | 201 => assert_eq!(answer.json()["digest"], created[0]["digest"]),
            _ => drop(answer.problem(409, "version_exists")),
        }
    }
    assert_eq!(app.blob_files(), 1);
}

/// Forms with a signature, in an API that asks for one.
#[tokio::test]
async fn a_plugin_comes_with_a_signature_that_is_trusted() {
    let keys = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = |end: &str| keys.path().join(format!("{name}{end}"));
        (SigningKey::generate(&path(".key"), &path(".pub.pem")).unwrap(), path(".pub.pem"))
    };
    let ((alice, trusted), (mallory, _)) = (make("alice"), make("mallory"));
    let trusted = TrustedKeys::read(&trusted).unwrap();
    let file = plugin("zones", false, true, json!({})).to_string();
    let app = TestApp::stocked().await.with(|config| config.signing = Signing { trusted, is_required: true });
    let files = app.blob_files();
    let digest = |text: &str| Digest::from_bytes(&Sha256::digest(text).into());
    let send =
        async |signature: &str| multipart(&app, "/plugin", &[("signature", signature), ("file", file.as_str())]).await;
    let signed =
        |key: &SigningKey, name: &str, of: &str| serde_json::to_string(&key.sign(name, "1.0.0", &digest(of))).unwrap();

    app.post("/plugin", file.clone()).await.problem(422, "unsigned_plugin");
    for (signature, words) in [
        (signed(&mallory, "zones", &file), "no trusted key"),
        (signed(&alice, "zones", "other bytes"), "the signature is for sha256:"),
        (signed(&alice, "tracker", &file), "calls itself `zones@1.0.0`"),
        ("{}".into(), "framehook plugin sign"),
        (" ".repeat(3000), "2048 bytes"),
    ] {
        let problem = send(&signature).await.problem(422, "invalid_signature");
        assert_eq!(problem["field"], "signature");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    assert_eq!(app.blob_files(), files, "what was refused left nothing");
    let view = send(&signed(&alice, "zones", &file)).await.ok(201);
    assert_eq!((&view["signed_by"]["name"], &view["signed_by"]["key"]), (&json!("alice"), &json!(alice.id())));
    assert_eq!(app.get("/plugin/zones/1.0.0").await.ok(200), view);
    let signature = signed(&alice, "zones", &file);
    let fields = [("signature", signature.as_str()), ("file", file.as_str())];
    let problem = multipart(&app, "/model?name=n", &fields).await;
    assert!(problem.problem(422, "invalid_signature")["detail"].as_str().unwrap().contains("only plugins"));

    // A new scenario takes what is signed, now or later, and no longer once its key is withdrawn.
    let with = |hook: &str| {
        let mut scenario = smallest();
        scenario["plugins"] = json!({"post": [{"use": hook}]});
        scenario
    };
    app.init(&with("zones")).await.ok(200);
    let problem = app.init(&with("yolo")).await.problem(422, "unsigned_plugin");
    assert!(problem["detail"].as_str().unwrap().contains("`yolo@1.0.0` is not signed"), "{problem}");
    let file = plugin("yolo", false, true, json!({"pad": 7, "scale": 1.0})).to_string();
    let signature = signed(&alice, "yolo", &file);
    multipart(&app, "/plugin", &[("signature", signature.as_str()), ("file", file.as_str())]).await.ok(200);
    app.init(&with("yolo")).await.ok(200);
    let app = app.with(|config| config.signing.trusted = TrustedKeys::default());
    let problem = app.init(&with("zones")).await.problem(422, "unsigned_plugin");
    assert!(problem["detail"].as_str().unwrap().contains("not trusted any more"), "{problem}");
    assert_eq!(problem["field"], "plugins.post[0].use");
}

#[tokio::test]
async fn no_registry_is_asked_that_is_not_named() {
    let app = TestApp::new().await;
    let import = async |from: &str| app.post(&format!("/plugin/import{from}"), "").await;
    import("").await.problem(400, "invalid_parameter");
    import("?from=ghcr.io/a:1").await.problem(400, "invalid_parameter");
    import("?from=oci://ghcr.io/a:1&signature=x").await.problem(400, "invalid_parameter");
    let problem = import("?from=oci://ghcr.io/a:1").await.problem(422, "registry_not_allowed");
    assert!(problem["detail"].as_str().unwrap().contains("there is none"), "{problem}");
}
