//! Settings as whoever starts `framehook` meets them: each test starts it, in an environment of its own.

use std::{fs, process::Command};

const OLD: &str = include_str!("../../tests/fixtures/release-0.1.0/settings.toml");

/// What it prints on stdout or, when it refuses, on stderr.
fn framehook(line: &str, environment: &[(&str, &str)]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framehook"));
    let output = command.args(line.split(' ')).env_clear().envs(environment.iter().copied()).output();
    let output = output.expect("framehook is built");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn dump(role: &str, file: &str) -> Result<String, String> {
    let path = written(file);
    framehook(&format!("{role} --dump-config --config {}", path.display()), &[])
}

fn written(text: &str) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path();
    fs::write(&file, text).expect("a file of ours");
    file
}

#[track_caller]
fn assert_refused(outcome: Result<String, String>, words: &str) {
    let said = outcome.expect_err(words);
    assert!(said.contains(words), "`{words}` is not in: {said}");
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file_which_wins_over_the_defaults() {
    let file =
        written("port = 1\nmax_workers = 7\nlabels = [\"a=1,2\"]\n[http]\nkeep_alive_s = 9\nhead_timeout_s = 0x9\n");
    let line = format!("up --dump-config --port 3 --config {}", file.display());
    let environment = [("FRAMEHOOK_PORT", "2"), ("FRAMEHOOK_HEAD_TIMEOUT_S", "4"), ("FRAMEHOOK_SOURCE_DIRS", "/a:/b")];
    let dumped = framehook(&line, &environment).unwrap();
    for line in [
        "port = 3",
        "max_workers = 7",
        "labels = [\"a=1,2\"]",
        "source_dirs = [\"/a\", \"/b\"]",
        "keep_alive_s = 9",
        "head_timeout_s = 4",
        "intra_threads = 1",
        "log = \"info\"",
        "# keep_results_days is not set",
        "require_sandbox = false",
    ] {
        assert!(dumped.lines().any(|dumped| dumped == line), "{line} is not in\n{dumped}");
    }
    let line = format!("up --dump-config --label b=1,c=2 --config {}", file.display());
    assert!(framehook(&line, &[]).unwrap().contains("labels = [\"b=1\", \"c=2\"]"));
    let config = [("FRAMEHOOK_CONFIG", file.to_str().unwrap())];
    assert!(framehook("up --dump-config --require-sandbox", &config).unwrap().contains("require_sandbox = true"));
}

#[test]
fn what_is_dumped_can_be_loaded() {
    for role in ["up", "api", "orchestrator", "runner", "migrate", "runner drain"] {
        for file in ["", OLD] {
            let dumped = dump(role, file).unwrap();
            assert_eq!(dump(role, &dumped).unwrap(), dumped, "{role}");
        }
    }
}

#[test]
fn a_file_of_the_last_release_says_the_same() {
    let roles = ["api", "orchestrator", "runner"].map(|role| dump(role, OLD).unwrap());
    for line in OLD.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let shown = match line.split_once(" = ") {
            Some(("kafka_properties", _)) => "kafka_properties = [\"security.protocol=***\"]",
            _ => line,
        };
        assert!(roles.iter().any(|dumped| dumped.lines().any(|dumped| dumped == shown)), "{shown}");
    }
}

#[test]
fn mistakes_in_the_file_are_named_with_their_line() {
    for (text, words) in [
        ("\nprot = 1", ":2: there is no setting prot; did you mean port?"),
        ("port = 70000", ":1: port is 70000; it must be 0 to 65535"),
        ("port = -1", "port is -1; it must be a whole number, 0 to 65535"),
        ("port = [1]", ":1: port cannot be of type array"),
        ("port = ", ":1: "),
        ("http = 1", ":1: http is a table; write [http], and below it a line for each setting"),
        ("[htpt]\nport = 1", ":1: there is no table htpt; did you mean http?"),
        ("port = 1\nlog = \"info\"\nport = 2", ":3: duplicate key port"),
        ("data = \"\"", ":1: data is empty; give it a value, or leave it out"),
        ("log = \"\"", ":1: log is empty"),
        ("labels = [\"a=1\", \"\"]", ":1: labels has an empty value among others"),
        ("[cluster]\nkafka_prefix = \"\"", ":2: cluster.kafka_prefix is empty"),
        ("max_page_mib = 1", "did you mean limits.max_page_mib?"),
        (
            "[cluster]\nkafka_broker = \"a:1\"",
            ":2: there is no setting cluster.kafka_broker; did you mean cluster.kafka_brokers?",
        ),
        (
            "[cluster]\nkafka_group_protocol = \"old\"",
            "cluster.kafka_group_protocol is old; it must be consumer or classic",
        ),
        ("[http]\nmax_connection = 1", "max_connection"),
        ("[http]\nhead_timeout_s = 0", "head_timeout_s is 0"),
        ("[http]\nmax_connections = 0", "http.max_connections is 0; it must be at least 1"),
        ("[http]\nkeep_alive_s = 3601", "it must be 1 to 3600"),
        ("[http]\nhosts = [\"http://a\"]", "http.hosts is http://a; `http://a` is no name"),
        ("max_workers = 0", "max_workers is 0"),
        ("max_workers = 4294967296", "max_workers is 4294967296"),
        ("labels = [\"gpu\"]", "labels is gpu; it must be KEY=VALUE"),
        ("labels = [\"=true\"]", "1 to 63"),
        ("labels = [\"site=a\", \"site=b\"]", "`site` is given twice"),
        (
            "source_networks = [\"10.1.0.0/33\"]",
            "source_networks is 10.1.0.0/33; it must be a network, such as 10.1.0.0/16",
        ),
        ("hook_memory_mib = 4096", "it must be 1 to 256"),
        ("max_picture_side = 20000", "it must be 1 to 16384"),
        ("disk_reserve_mib = 3", "disk_reserve_mib is 3; it must be at least 8, or 0 for none"),
        ("worker_memory_mib = 63", "worker_memory_mib is 63; it must be at least 64"),
        ("worker_memory_mib = 0", "worker_memory_mib is 0; it must be at least 64"),
        ("log_format = \"xml\"", "log_format is xml; it must be text or json"),
        ("[limits]\nmax_config_kib = 300", ":2: limits.max_config_kib is 300; limits.max_configs_kib is 256"),
        (
            "[http]\nmax_connections = 8\nmax_connections_per_peer = 9",
            ":3: http.max_connections_per_peer is 9; http.max_connections is 8",
        ),
        ("max_video_mib = 17592186044416", "max_video_mib"),
        ("[limits]\nmax_page_mib = 0", "limits.max_page_mib is 0"),
        ("[limits]\nmax_starts_min = 60001", "limits.max_starts_min is 60001; it must be 1 to 60000"),
        ("[limits]\nmax_prediction_kib = 199", "it must be 200 to"),
        ("[limits]\nmax_pag_mib = 1", "max_pag_mib"),
    ] {
        assert_refused(dump("up", text), words);
    }
    let nowhere = |origin| format!("settings file /nowhere.toml; name one that is there with {origin}, or leave");
    assert_refused(framehook("up --config /nowhere.toml", &[]), &nowhere("--config"));
    assert_refused(framehook("up", &[("FRAMEHOOK_CONFIG", "/nowhere.toml")]), &nowhere("FRAMEHOOK_CONFIG"));
    assert_refused(framehook("up --require-signed", &[]), "no key is trusted");
    assert_refused(framehook("up --registry https://ghcr.io", &[]), "a host is a lower-case name");
    let both = "--max-config-kib is 300; limits.max_configs_kib is 256 (--max-configs-kib)";
    assert_refused(framehook("up --max-config-kib 300", &[]), both);
    assert!(dump("up", "[http]\nmax_connections = 8\nmax_connections_per_peer = 32").is_ok());
}

#[test]
fn a_mistake_is_named_by_the_variable_or_the_flag_that_holds_it() {
    for (name, value, words) in [
        ("FRAMEHOOK_PORT", "http", "FRAMEHOOK_PORT is http; it must be a whole number, 0 to 65535"),
        ("FRAMEHOOK_LOG", "a=b=c", "FRAMEHOOK_LOG is a=b=c; it must be a filter, such as `info` or `debug`"),
        ("FRAMEHOOK_MAX_PAGE_MIB", "0", "FRAMEHOOK_MAX_PAGE_MIB is 0; it must be 1 to 1024"),
        ("FRAMEHOOK_LABELS", "a=1,a=2", "FRAMEHOOK_LABELS is a=1,a=2; `a` is given twice"),
        ("FRAMEHOOK_REQUIRE_SANDBOX", "yes", "FRAMEHOOK_REQUIRE_SANDBOX is yes; it must be true or false"),
        ("FRAMEHOOK_MAX_WOKERS", "1", "FRAMEHOOK_MAX_WOKERS, which is no setting; did you mean FRAMEHOOK_MAX_WORKERS?"),
        ("FRAMEHOOK_CONFG", "", "did you mean FRAMEHOOK_CONFIG?"),
    ] {
        assert_refused(framehook("up", &[(name, value)]), words);
        assert_refused(framehook("runner drain", &[(name, value)]), words);
    }
    let environment = [("FRAMEHOOK_PORT", "http")];
    assert!(framehook("up --dump-config --port 1", &environment).is_ok());
    assert_refused(framehook("up --port 70000", &environment), "--port is 70000; it must be 0 to 65535");
    assert_refused(framehook("up --label gpu", &[]), "--label is gpu; it must be KEY=VALUE");
    assert_refused(framehook("up --max-config-kib 300", &[]), "--max-config-kib is 300; limits.max_configs_kib is 256");
}

#[test]
fn an_empty_variable_is_as_if_it_were_not_set() {
    let names = ["CONFIG", "DATA", "SOURCE_DIRS", "HOSTS", "LOG", "PORT", "REQUIRE_SANDBOX", "LOG_FORMAT", "BIND"];
    let names = names.map(|name| format!("FRAMEHOOK_{name}"));
    let environment: Vec<_> = names.iter().map(|name| (&**name, "")).chain([("REDIS_URL", "")]).collect();
    for role in ["up", "api", "runner drain"] {
        let line = format!("{role} --dump-config");
        assert_eq!(framehook(&line, &environment), framehook(&line, &[]), "{role}");
    }
    for (line, words) in [
        ("up --data=", "--data is empty; give it a value, or leave it out"),
        ("up --log=", "--log is empty"),
        ("up --label=a=1,", "--label has an empty value among others"),
    ] {
        assert_refused(framehook(line, &[]), words);
    }
    let trailing = [("FRAMEHOOK_SOURCE_DIRS", "/a:")];
    assert_refused(framehook("up", &trailing), "FRAMEHOOK_SOURCE_DIRS has an empty value among others");
}

#[test]
fn a_command_that_is_not_there_is_not_taken_for_a_hidden_one() {
    let said = framehook("artifact list", &[]).unwrap_err();
    assert!(said.contains("there is no command artifact.") && said.contains("over HTTP"), "{said}");
    assert!(!said.contains("plugin-host"), "{said}");
    assert_refused(framehook("migrat", &[]), "there is no command migrat; did you mean migrate?");
}

#[test]
fn what_is_no_role_has_no_settings() {
    let verdict = framehook("plugin-host confinement", &[("FRAMEHOOK_PRT", "1")]).expect("a verdict");
    assert!(verdict.starts_with('['), "{verdict}");
}

#[test]
fn variables_of_others_are_left_alone() {
    let of_others =
        [("FRAMEHOOK_API_1", "a:1"), ("FRAMEHOOK_LISTEN", ":80"), ("FRAMEHOOK_TEST_SEED", "1"), ("FRAME", "")];
    assert!(framehook("up --dump-config", &of_others).is_ok());
}

#[test]
fn a_role_has_its_own_flags_and_takes_the_others_from_file_and_environment() {
    for (role, of_its_own, of_others) in [
        ("up", &["--max-workers", "--max-page-mib", "--keep-results-days"][..], &["--bind", "--database-url"][..]),
        ("api", &["--max-page-mib", "--database-url", "--bind", "--blobs"], &["--max-workers", "--keep-results-days"]),
        ("orchestrator", &["--keep-results-days", "--database-url", "--port"], &["--worker", "--blobs", "--label"]),
        ("runner", &["--max-workers", "--runner-id", "--blobs"], &["--max-page-mib", "--database-url", "--redis-url"]),
        ("migrate", &["--database-url", "--log"], &["--kafka-brokers", "--port"]),
        ("runner drain", &["--data"], &["--port", "--log"]),
    ] {
        let help = framehook(&format!("{role} --help"), &[]).unwrap();
        let lists = |flag: &str| help.lines().any(|line| line.trim_start().split(' ').next() == Some(flag));
        for flag in of_its_own {
            assert!(lists(flag), "{role} {flag}\n{help}");
        }
        for flag in of_others {
            assert!(!lists(flag), "{role} {flag}\n{help}");
            let refused = framehook(&format!("{role} {flag} 1"), &[]);
            assert_refused(refused, &format!("framehook {} has no {flag}", role.rsplit(' ').next().unwrap()));
        }
    }
    let environment = [("FRAMEHOOK_MAX_PAGE_MIB", "3"), ("FRAMEHOOK_MAX_WORKERS", "5")];
    let dumped = framehook("runner --dump-config", &environment).unwrap();
    assert!(dumped.contains("max_workers = 5") && !dumped.contains("max_page_mib"), "{dumped}");
    let help = framehook("up --help", &[]).unwrap();
    assert!(help.contains("[default: 8080]") && help.contains("[default: three"), "{help}");
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let url = "postgres://me:s3c@ret@db/framehook?password=s3cret";
    let s3 = url.replace("postgres", "s3");
    let environment = [
        ("DATABASE_URL", url),
        ("REDIS_URL", url),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("FRAMEHOOK_BLOBS", &s3),
        ("FRAMEHOOK_KEY", "=s3cret"),
        ("FRAMEHOOK_KAFKA_PROPERTIES", "sasl.password=s3cret"),
    ];
    let dumped = framehook("api --dump-config", &environment).unwrap();
    assert!(dumped.contains("postgres://me:***@db/framehook") && dumped.contains("sasl.password=***"), "{dumped}");
    let help = framehook("api --help", &environment).unwrap();
    let refused = framehook("api", &[("FRAMEHOOK_KAFKA_PROPERTIES", "s3cret")]).unwrap_err();
    assert!(refused.contains("FRAMEHOOK_KAFKA_PROPERTIES is ***; it must be KEY=VALUE"), "{refused}");
    let files =
        ["[cluster]\nkey = s3cret", "[cluster]\nkey = [\"s3cret\"]", "[cluster]\nkafka_properties = [\"s3cret\"]"];
    let refused = files.map(|file| dump("api", file).unwrap_err());
    for text in refused.iter().chain([&dumped, &help]) {
        assert!(!text.contains("s3c"), "{text}");
    }
}

#[test]
fn what_cannot_be_used_is_called_what_it_was_set_with() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let file = written("worker = \"/nowhere\"\nsource_dirs = [\"/nowhere\"]\n");
    let in_file = |key: &str, line: u32| format!("{key} ({}:{line})", file.display());

    let config = format!("--config {}", file.display());
    let refused = |line: &str, environment: &[(&str, &str)], words: &str| {
        let environment = [&[("FRAMEHOOK_DATA", &*data)], environment].concat();
        assert_refused(framehook(line, &environment), words);
    };
    refused(&format!("up {config}"), &[], &format!("say where it is with {}", in_file("worker", 1)));
    let executable = env!("CARGO_BIN_EXE_framehook");
    let up = format!("up --worker {executable} --onnxruntime {executable}");
    let dirs = format!("{} cannot be used: cannot read the source folder /nowhere", in_file("source_dirs", 2));
    refused(&format!("{up} {config}"), &[], &dirs);
    refused("up", &[("FRAMEHOOK_WORKER", "/nowhere")], "say where it is with FRAMEHOOK_WORKER");
    refused(&up, &[("FRAMEHOOK_PORT", &port)], "choose another port with FRAMEHOOK_PORT");
    refused(&format!("{up} --port {port}"), &[], "(os error 98); choose another port with --port");
    let cluster = [("FRAMEHOOK_PORT", &*port), ("FRAMEHOOK_BIND", "0.0.0.0"), ("FRAMEHOOK_KEY", "s3cret")];
    refused(&up, &cluster, "`up` has no settings of a cluster; ignored: FRAMEHOOK_KEY, FRAMEHOOK_BIND\n");
    refused(&format!("{up} --data {executable}"), &[], &format!("{executable} is a file; name a folder with --data"));
    let collector = "OTEL_EXPORTER_OTLP_ENDPOINT";
    refused(&up, &[(collector, "nowhere:x")], &format!("{collector} cannot be used"));
    refused(&format!("{up} --data /proc/nowhere"), &[], "--data cannot be used: cannot make the data folder");
    let embedded = folder.path().join("embedded");
    fs::create_dir(&embedded).unwrap();
    refused(&format!("runner drain --data {}", embedded.display()), &[], "no runner runs on");
    fs::write(embedded.join("framehook.db"), "").unwrap();
    refused(&format!("runner drain --data {}", embedded.display()), &[], "is a folder of `framehook up`");
    let made = folder.path().join("made").display().to_string();
    refused(
        "migrate",
        &[("DATABASE_URL", "mysql://nowhere/x"), ("FRAMEHOOK_DATA", &made)],
        "DATABASE_URL cannot be used",
    );
    assert!(!fs::exists(&made).unwrap(), "a folder for nothing");
    refused("migrate", &[], "framehook: no database is named");
}
