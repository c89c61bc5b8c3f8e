//! Every mistake at once, and who wins over whom.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

/// As the daemon does.
fn load(sources: &Sources) -> Result<Config, ConfigMistakes> {
    super::load(sources, Secrets::Read).map(|loaded| loaded.config)
}

fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("matterbind.toml");
    std::fs::write(&path, text).unwrap();
    (directory, Sources { file: Some(path), ..Sources::default() })
}

fn with_env(mut sources: Sources, pairs: &[(&str, &str)]) -> Sources {
    sources.environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    sources
}

fn keys(sources: &Sources) -> Vec<String> {
    load(sources).expect_err("mistakes").0.into_iter().map(|mistake| mistake.key).collect()
}

#[test]
fn nothing_said_is_the_default() {
    let (_directory, sources) = file("");
    let mut expected = Config::default();
    expected.attestation.paa_dirs = vec!["/var/lib/matterbind/paa".into()];
    assert_eq!(load(&sources).unwrap(), expected);
}

#[test]
fn flags_win_over_environment_over_file() {
    let (_directory, sources) = file("[commissioning]\ndeadline = \"70s\"\nmax_concurrent = 2\nfail_safe = \"40s\"");
    let sources = with_env(
        sources,
        &[
            ("MATTERBIND_COMMISSIONING__DEADLINE", "80s"),
            ("MATTERBIND_COMMISSIONING__MAX_CONCURRENT", "3"),
            ("MATTERBIND_STATE_DIR", "/srv/state"),
            ("MATTERBIND_NETWORK__INTERFACES", "[\"eth0\"]"),
            ("MATTERBIND_FABRIC__LABEL", "12"),
            ("PATH", "/bin"),
        ],
    )
    .with_flag("commissioning.max_concurrent", 4, "--max-concurrent");
    let config = load(&sources).unwrap();
    assert_eq!(config.commissioning.deadline, Duration::from_secs(80));
    assert_eq!(config.commissioning.fail_safe, Duration::from_secs(40));
    assert_eq!(config.commissioning.max_concurrent, 4);
    assert_eq!(config.state_dir, PathBuf::from("/srv/state"));
    assert_eq!(config.network.interfaces, ["eth0"]);
    assert_eq!(config.fabric.label, "12", "a text stays a text, whatever it looks like");
}

#[test]
fn the_service_managers_directories_are_defaults() {
    let (_directory, sources) = file("socket = \"/tmp/mine.sock\"");
    let env = [("STATE_DIRECTORY", "/var/lib/matterbind-two:/x"), ("RUNTIME_DIRECTORY", "/run/two")];
    let config = load(&with_env(sources, &env)).unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/matterbind-two"));
    assert_eq!(config.socket, PathBuf::from("/tmp/mine.sock"));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let (_directory, sources) = file(
        r#"
        stat_dir = "/x"
        [fabric]
        label = "a label that is longer than thirty-two bytes"
        admin_vendor_id = 70000
        [commissioning]
        deadline = "soon"
        fail_safe = "70000s"
        [access]
        admin_cat = 0x0001_0000
        grants = [ { cat = 0x0002_0000, privilege = "Operate" }, { cat = 0x0003_0001, privilege = "Own" } ]
        [cloud]
        base_url = "ftp://example.com"
        email = "hub"
        password_file = "/does/not/exist"
        on_rejected = "maybe"
        [[products]]
        vendor_id = 1
        product_id = 2
        product_key = "p"
        device_key = { attribute = "0/0x28" }
        binding_code = "secret"
        [[products]]
        vendor_id = 1
        product_id = 2
        product_key = "p 2"
        device_key = "serial-number"
        binding_code = "random"
        [admin]
        tcp = "8480"
        [log]
        level = "=="
        colour = true
        "#,
    );
    let keys = keys(&with_env(sources, &[("MATTERBIND_CLOUD__TIMEOUT", "0s"), ("MATTERBIND_LOGS", "x")]));
    for expected in [
        "stat_dir",
        "fabric.label",
        "fabric.admin_vendor_id",
        "commissioning.deadline",
        "commissioning.fail_safe",
        "access.admin_cat",
        "access.grants[0].cat",
        "access.grants[1].privilege",
        "cloud.base_url",
        "cloud.email",
        "cloud.password_file",
        "cloud.on_rejected",
        "cloud.timeout",
        "cloud.user_domain",
        "cloud.user_domain_secret_file",
        "products[0].device_key.attribute",
        "products[0].binding_code",
        "products[1].product_id",
        "products[1].product_key",
        "admin.tcp",
        "admin.token_file",
        "log.level",
        "log.colour",
        "logs",
    ] {
        assert!(keys.iter().any(|key| key == expected), "{expected} is missing in {keys:#?}");
    }
    let unique: std::collections::HashSet<&String> = keys.iter().collect();
    assert!(unique.len() >= keys.len() - 1, "a key is reported more than once: {keys:#?}");
}

#[test]
fn a_mistake_says_where_it_was_made_and_what_to_write() {
    let (_directory, sources) = file("[fabric]\nlabel = \"Home\"");
    let sources = with_env(sources, &[("MATTERBIND_COMMISSIONING__DEADLINE", "soon")]);
    let mistake = load(&sources).expect_err("not a time").0.remove(0);
    assert_eq!(mistake.key, "commissioning.deadline");
    assert_eq!(mistake.origin, "MATTERBIND_COMMISSIONING__DEADLINE");
    assert!(mistake.instead.contains("\"90s\""), "{mistake}");
}

#[test]
fn the_log_table_is_not_a_word() {
    let (_directory, sources) = file("");
    let error = load(&with_env(sources, &[("MATTERBIND_LOG", "debug")])).expect_err("a table");
    assert!(error.to_string().contains("MATTERBIND_LOG__LEVEL"), "{error}");
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let (directory, sources) = file("state_dir = \"state\"\n[attestation]\npaa_dirs = [\"paa\"]");
    let config = load(&sources).unwrap();
    assert_eq!(config.state_dir, directory.path().join("state"));
    assert_eq!(config.attestation.paa_dirs, [directory.path().join("paa")]);
}

#[test]
fn a_named_file_must_exist() {
    let sources = Sources { file: Some("/does/not/exist.toml".into()), ..Sources::default() };
    assert_eq!(keys(&sources), [""]);
}

#[test]
fn the_effective_configuration_reads_back_and_holds_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["domain", "password", "token"] {
        std::fs::write(directory.path().join(name), format!("very-secret-{name}-0123456789ABCDEFG")).unwrap();
    }
    let nobody_else = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(directory.path().join("token"), nobody_else).unwrap();
    let text = r#"
        [cloud]
        base_url = "https://iot-api.acceleronix.io"
        user_domain = "C.DM.1.1"
        user_domain_secret_file = "domain"
        email = "hub@example.com"
        password_file = "password"
        [admin]
        tcp = "127.0.0.1:8480"
        token_file = "token"
    "#;
    let path = directory.path().join("matterbind.toml");
    std::fs::write(&path, text).unwrap();
    let config = load(&Sources { file: Some(path), ..Sources::default() }).unwrap();
    let printed = effective(&config);
    assert!(!printed.contains("very-secret"), "{printed}");
    assert!(printed.contains(&directory.path().join("password").display().to_string()));
    assert_eq!(toml::from_str::<Config>(&printed).unwrap(), config);
}

/// All key paths of a value; elements of arrays stand under their array's name.
fn paths(prefix: &str, value: &Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                paths(&format!("{prefix}.{key}"), value, into);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_table) => {
            items.iter().for_each(|item| paths(prefix, item, into));
        }
        _ => drop(into.insert(prefix.to_owned())),
    }
}

#[test]
fn the_reference_file_shows_every_key() {
    let text = include_str!("../../../config/matterbind.toml");
    // Sections that are off by default stand there as comments of the form `#key = value` or `#[section]`.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let table: Table = uncommented.parse().unwrap();
    as_config(Value::Table(table.clone())).unwrap();
    let (mut known, mut shown) = (Default::default(), Default::default());
    paths("", &sample(), &mut known);
    paths("", &Value::Table(table), &mut shown);
    let missing: Vec<&String> = known.difference(&shown).collect();
    assert!(missing.is_empty(), "config/matterbind.toml does not show {missing:?}");
}

#[test]
fn the_files_in_config_are_right() {
    for name in ["matterbind.toml", "matterbind.dev.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        load(&Sources { file: Some(path), ..Sources::default() }).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_shorter_deadline_shortens_what_nobody_said() {
    let (_directory, sources) = file("[commissioning]\ndeadline = \"8s\"\n");
    let times = load(&sources).unwrap().commissioning;
    let eight = Duration::from_secs(8);
    assert_eq!((times.discover_timeout, times.step_timeout, times.fail_safe), (eight, eight, eight));
    let (_directory, sources) = file("[commissioning]\ndeadline = \"8s\"\nfail_safe = \"9s\"\n");
    assert_eq!(keys(&sources), ["commissioning.fail_safe"], "what somebody said is theirs");
}

#[test]
fn every_part_knows_its_keys() {
    let product = "[[products]]\nvendor_id = 1\nproduct_id = 2\nproduct_key = \"p\"\ndevice_key = \"unique-id\"\n";
    for (text, key) in [
        (format!("{product}binding_code = {{ write = \"1/2/3\", nonsense = 1 }}\n"), "products[0].binding_code"),
        (
            format!("{product}binding_code = {{ attribute = \"1/2/3\", write = \"1/2/3\" }}\n"),
            "products[0].binding_code",
        ),
        (format!("{product}binding_code = \"random\"\nnonsense = 1\n"), "products[0].nonsense"),
        (
            product.replace("\"unique-id\"", "{ attribute = \"1/2/3\", nonsense = 1 }") + "binding_code = \"random\"\n",
            "products[0].device_key",
        ),
        (
            "[access]\ngrants = [ { cat = 0x2_0001, privilege = \"View\", nonsense = 1 } ]\n".to_owned(),
            "access.grants[0].nonsense",
        ),
        (
            "[attestation]\nallow_test = [ { vendor_id = 1, nonsense = 1 } ]\n".to_owned(),
            "attestation.allow_test[0].nonsense",
        ),
        ("[log]\nlevel = \"loud\"\n".to_owned(), "log.level"),
        ("[log]\nlevel = \"info,loud\"\n".to_owned(), "log.level"),
    ] {
        let (_directory, sources) = file(&text);
        assert_eq!(keys(&sources), [key], "{text}");
    }
    let (_directory, sources) = file("[log]\nlevel = \"warn,matterbind=debug\"\n");
    load(&sources).unwrap();
}

#[test]
fn who_asks_is_told_of_files_that_a_start_can_do_without() {
    let (directory, sources) = file("");
    let nonsense = directory.path().join("nonsense.pem");
    std::fs::write(&nonsense, "nonsense").unwrap();
    let text = format!(
        "[admin]\ntcp = \"192.0.2.1:8480\"\ntoken_file = \"token\"\ntls_cert_file = \"/nowhere/cert.pem\"\ntls_key_file = {nonsense:?}\n\
         [[networks]]\nssid = \"A\"\npassword_file = \"/nowhere/wifi\"\n\
         [[networks]]\nssid = \"B\"\nname = \"A\"\n\
         [[networks]]\ndataset_file = \"/nowhere/thread\"\n"
    );
    let (_directory, again) = file(&text);
    drop(sources);
    let mistakes = super::load(&again, Secrets::Judge).unwrap_err().0;
    let named: BTreeSet<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    let expected = [
        "admin.tls_cert_file",
        "admin.tls_key_file",
        "networks[0].password_file",
        "networks[1]",
        "networks[2].dataset_file",
    ];
    assert_eq!(named, expected.into());
    super::load(&again, Secrets::NotUsed).unwrap();
}

#[test]
fn a_tool_needs_no_secret_that_only_the_unit_has() {
    let cloud = "[cloud]\nbase_url = \"https://example.com\"\nuser_domain = \"d\"\nuser_domain_secret_file = \"cloud-domain-secret\"\n\
                 email = \"hub@example.com\"\npassword_file = \"cloud-password\"\n";
    let (_directory, sources) = file(cloud);
    let names = ["cloud.user_domain_secret_file", "cloud.password_file"];
    assert_eq!(keys(&sources), names, "the daemon needs them");
    super::load(&sources, Secrets::NotUsed).unwrap();
    let notes = super::load(&sources, Secrets::Judge).unwrap().notes;
    assert_eq!(notes.iter().map(|note| note.key.as_str()).collect::<Vec<_>>(), names);
    // A path is no credential: if nothing is there, it is wrong.
    let (_directory, sources) = file(&cloud.replace("\"cloud-password\"", "\"/nowhere/password\""));
    let mistakes = super::load(&sources, Secrets::Judge).unwrap_err().0;
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
}

#[test]
fn files_beside_the_file_say_more() {
    let product = |id: u16| {
        format!(
            "[[products]]\nvendor_id = 1\nproduct_id = {id}\nproduct_key = \"p\"\ndevice_key = \"unique-id\"\nbinding_code = \"random\"\n"
        )
    };
    let (directory, sources) = file(&format!("[fabric]\nlabel = \"Home\"\nadmin_vendor_id = 2\n{}", product(1)));
    let drop_ins = directory.path().join("conf.d");
    std::fs::create_dir(&drop_ins).unwrap();
    let write = |name: &str, text: &str| std::fs::write(drop_ins.join(name), text).unwrap();
    write("20-label.toml", "[fabric]\nlabel = \"Ours\"\n");
    write("10-label.toml", "[fabric]\nlabel = \"Theirs\"\n[network]\ninterfaces = [\"eth1\"]\n");
    write("30-product.toml", &product(2));
    write("40-note.txt", "this is no configuration");
    let config = load(&sources).unwrap();
    assert_eq!((config.fabric.label.as_str(), config.fabric.admin_vendor_id), ("Ours", 2));
    assert_eq!(config.network.interfaces, ["eth1"]);
    assert_eq!(config.products.iter().map(|product| product.product_id).collect::<Vec<_>>(), [1, 2]);
    write("20-label.toml", "[fabric]\nlabel = \"\"\n");
    let mistake = load(&sources).unwrap_err().0.remove(0);
    assert!(mistake.origin.ends_with("20-label.toml:2"), "{mistake}");
}

#[test]
fn a_mistake_in_a_file_has_its_line_and_a_list_that_grows_keeps_them_apart() {
    let product = |key: &str| {
        format!(
            "[[products]]\nvendor_id = 0xFFF1\nproduct_id = 1\nproduct_key = \"{key}\"\ndevice_key = \"serial-number\"\n\
             binding_code = \"random\"\n"
        )
    };
    let text = format!("# A comment.\n[log]\nlevel = \"loud\"\n\n[cloud]\nbase_url = 7\n\n{}", product("p11abc"));
    let (directory, sources) = file(&text);
    std::fs::create_dir(directory.path().join("conf.d")).unwrap();
    std::fs::write(directory.path().join("conf.d/more.toml"), format!("\n\n{}", product("no key!"))).unwrap();
    let mistakes = load(&sources).expect_err("mistakes").0;
    let line_of = |key: &str| {
        let mistake =
            mistakes.iter().find(|mistake| mistake.key == key).unwrap_or_else(|| panic!("{key}: {mistakes:#?}"));
        let (file, line) = mistake.origin.rsplit_once(':').unwrap_or_else(|| panic!("{mistake}"));
        (file.rsplit('/').next().unwrap().to_owned(), line.parse::<usize>().unwrap())
    };
    assert_eq!(line_of("log.level"), ("matterbind.toml".to_owned(), 3));
    assert_eq!(line_of("cloud.base_url"), ("matterbind.toml".to_owned(), 6));
    // What is missing is missed where its section begins.
    assert_eq!(line_of("cloud.email"), ("matterbind.toml".to_owned(), 5));
    assert_eq!(line_of("products[1].product_key"), ("more.toml".to_owned(), 6));
    assert_eq!(line_of("products[1].product_id"), ("more.toml".to_owned(), 5));
}

#[test]
fn the_clients_variable_does_not_move_the_daemon() {
    let (_directory, sources) = file("socket = \"/run/here/admin.sock\"");
    let config = load(&with_env(sources, &[("MATTERBIND_SOCKET", "/tmp/elsewhere.sock")])).unwrap();
    assert_eq!(config.socket, Path::new("/run/here/admin.sock"));
}

/// What is wrong with a value by a schema, as far as the configuration's uses JSON Schema.
fn faults(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value, at: &str) -> Vec<String> {
    use serde_json::Value;
    if let Some(name) = schema["$ref"].as_str() {
        let named = root.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is not there"));
        return faults(root, named, value, at);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[key].as_array() {
            let fits = choices.iter().any(|choice| faults(root, choice, value, at).is_empty());
            return if fits { Vec::new() } else { vec![format!("{at}: {value} is none of its choices")] };
        }
    }
    let mut wrong = Vec::new();
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is not known here"),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
        wrong.push(format!("{at}: {value} is no {kinds:?}"));
    }
    let allowed = schema["enum"].as_array().cloned().or_else(|| Some(vec![schema.get("const")?.clone()]));
    if allowed.is_some_and(|allowed| !allowed.contains(value)) {
        wrong.push(format!("{at}: {value} is not among its values"));
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        match &schema["properties"][key] {
            Value::Null if schema["additionalProperties"] == false => wrong.push(format!("{at}.{key} is unknown")),
            Value::Null => {}
            property => wrong.extend(faults(root, property, inner, &format!("{at}.{key}"))),
        }
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(key).is_none() {
            wrong.push(format!("{at}.{key} is missing"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(faults(root, &schema["items"], item, &format!("{at}[{index}]")));
    }
    wrong
}

#[test]
fn the_schema_takes_the_reference_and_refuses_what_the_daemon_refuses() {
    let schema = crate::config::schema();
    let judged = |text: &str| {
        let table: Table = text.parse().unwrap();
        faults(&schema, &schema, &serde_json::to_value(table).unwrap(), "")
    };
    for name in ["matterbind.toml", "matterbind.dev.toml"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap();
        assert_eq!(judged(&text), [""; 0], "{name}");
    }
    let sample = toml::to_string(&sample_config()).unwrap();
    assert_eq!(judged(&sample), [""; 0], "{sample}");
    for wrong in [
        "no_such_key = 1",
        "[network]\ninterface = [\"eth0\"]",
        "[network]\ninterfaces = \"eth0\"",
        "[commissioning]\nmax_concurrent = \"many\"",
        "[attestation]\npolicy = \"sometimes\"",
        "[log]\nformat = \"xml\"",
        "[cloud]\nbase_url = \"https://iot-api.acceleronix.io\"",
        "[access]\ngrants = [ { cat = 0x0002_0001 } ]",
        "[[products]]\nvendor_id = 1\nproduct_id = 1\nproduct_key = \"a\"\ndevice_key = \"serial\"\nbinding_code = \"random\"",
    ] {
        assert!(!judged(wrong).is_empty(), "{wrong} passes");
        let (_directory, sources) = file(wrong);
        assert!(load(&sources).is_err(), "{wrong}: the daemon takes it");
    }
}
