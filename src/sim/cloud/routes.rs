//! The one table of endpoints: what serves them and what describes them in `/openapi.json`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::world::{Refusal, World};
use super::{backdoor, bind, devices, family, login};

pub(super) struct Call {
    params: HashMap<String, String>,
    body: Value,
    token: Option<String>,
}

impl Call {
    /// From the query, the body, and the `Authorization` header. A form body counts as parameters.
    pub(super) fn new(query: &str, form: Option<&str>, body: Value, token: Option<String>) -> Self {
        let pairs = |text: &str| {
            let url = reqwest::Url::parse(&format!("http://parameters/?{text}")).ok()?;
            Some(url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect::<Vec<_>>())
        };
        let params = [query, form.unwrap_or_default()].into_iter().filter_map(pairs).flatten().collect();
        Self { params, body, token }
    }

    /// A parameter that is there and not blank.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str).filter(|text| !text.trim().is_empty())
    }

    /// A parameter, or the code that its absence has.
    pub(super) fn required(&self, name: &str, code: i64) -> Result<&str, Refusal> {
        self.param(name).ok_or_else(|| code.into())
    }

    /// The JSON body, null without one.
    pub(super) fn body(&self) -> &Value {
        &self.body
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    summary: &'static str,
    /// Parameters in query or form; `*` marks a required one.
    params: &'static [&'static str],
    /// Fields of a JSON body; `*` marks a required one.
    body: &'static [&'static str],
    pub(super) handle: fn(&mut World, &Call) -> Result<Value, Refusal>,
}

impl Route {
    /// The last part of the path, by which faults and counters name it.
    pub(super) fn endpoint(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    /// Whether it is the vendor's, not the back door's.
    pub(super) fn is_vendor(&self) -> bool {
        !self.path.starts_with("/sim/")
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $summary:literal ($($param:literal)*) {$($field:literal)*} => $handle:path;)*) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            summary: $summary,
            params: &[$($param),*],
            body: &[$($field),*],
            handle: $handle,
        }),*]
    };
}

pub(super) static ROUTES: &[Route] = routes! {
    POST "/v2/enduser/enduserapi/emailPwdLogin" "Email password login" ("email*" "pwd*" "signature*" "userDomain*" "random" "mcc") {} => login::email_pwd_login;
    PUT "/v2/enduser/enduserapi/refreshToken" "Refresh the token pair" ("refreshToken*") {} => login::refresh_token;
    DELETE "/v2/enduser/enduserapi/userLogout" "Sign out" ("deviceId") {} => login::user_logout;
    POST "/v2/binding/enduserapi/v2/deviceBindingByWifi" "WiFi device binding" () {"bindingCode*" "capabilitiesBitmask" "deviceKey*" "deviceName" "fid" "frid" "isCommonDevice" "isMatter" "matterInfo" "productKey*"} => bind::device_binding_by_wifi;
    GET "/v2/binding/enduserapi/getDeviceInfoByBinding" "Query whether the user can bind the device" ("pk*" "dk" "fid" "checkExistInCloud") {} => devices::get_device_info_by_binding;
    GET "/v2/binding/enduserapi/deviceInfo" "Query device information" ("pk*" "dk*") {} => devices::device_info;
    GET "/v2/binding/enduserapi/userDeviceList" "Devices of the account, by page" ("dk" "pkList" "deviceName" "page" "pageSize") {} => devices::user_device_list;
    DELETE "/v2/binding/enduserapi/unbundlingDeviceDk" "Unbind" ("pk*" "dk*" "isInit") {} => devices::unbundling_device_dk;
    PUT "/v2/binding/enduserapi/setDeviceInfo" "Rename" ("pk*" "dk*" "deviceName*") {} => devices::set_device_info;
    GET "/v2/family/enduserapi/getFamilyList" "Families of the account" () {} => family::get_family_list;
    POST "/v2/family/enduserapi/addFamily" "Create a family" () {"familyName*" "familyRoomList"} => family::add_family;
    GET "/v2/family/enduserapi/getFamilyRoomList" "Rooms of a family" ("fid*") {} => family::get_family_room_list;
    POST "/v2/family/enduserapi/addFamilyRoom" "Create a room" ("fid*" "roomName*") {} => family::add_family_room;
    PUT "/v2/family/enduserapi/setDeviceInfo" "Move or rename devices; the body is an array" () {"pk*" "dk*" "fid" "newFrid" "oldFrid" "deviceName"} => family::set_device_info;
    POST "/sim/report-code" "The device reports a binding code" () {"product_key*" "device_key*" "binding_code*" "seconds"} => backdoor::report_code;
    POST "/sim/expire-code" "The binding window passes" () {"product_key*" "device_key*"} => backdoor::expire_code;
    POST "/sim/device" "Add or replace a device" () {"product_key*" "device_key*" "region" "verified" "secret_reported" "binding_code" "code_seconds"} => backdoor::put_device;
    POST "/sim/change-device" "Change region, verified or secret_reported" () {"product_key*" "device_key*" "region" "verified" "secret_reported"} => backdoor::change_device;
    POST "/sim/product" "Add or replace a product" () {"key*" "name" "binding_mode" "auto_devices" "any_code"} => backdoor::put_product;
    POST "/sim/revoke-tokens" "Make tokens worthless" () {"email"} => backdoor::revoke_tokens;
    POST "/sim/advance-clock" "Advance the clock" () {"seconds*"} => backdoor::advance_clock;
    POST "/sim/fault" "Queue a fault" () {"endpoint" "kind*" "code" "status" "delay_ms" "after_commit" "times"} => backdoor::queue_fault;
    POST "/sim/switches" "Replace the switches" () {"id_storage" "ids_as_strings" "strict" "error_status" "empty_data" "success_code_zero" "zero_discriminator_missing" "rotate_refresh_tokens" "single_session" "list_without_matter_info" "matter_flag_as_integer"} => backdoor::set_switches;
    POST "/sim/drop-binding" "Remove a binding" () {"product_key*" "device_key*"} => backdoor::drop_binding;
    POST "/sim/change-matter-info" "Overwrite fields of a binding's matterInfo" () {"product_key*" "device_key*" "matter_info*"} => backdoor::change_matter_info;
    GET "/sim/state" "Bindings, devices, counters, faults" () {} => backdoor::state;
};

/// The OpenAPI 3.1 document of the table.
pub(super) fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "matterbind reference cloud", "version": env!("CARGO_PKG_VERSION"),
            "description": "The binding service as matterbind understands it, for tests. HTTP 200 unless switched; success is body code 200."
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "apiKey", "in": "header", "name": "Authorization", "description": "the access token exactly as returned"
            } },
            "schemas": { "Envelope": {
                "type": "object", "required": ["code"],
                "properties": {
                    "code": { "type": "integer", "format": "int32" }, "msg": { "type": ["string", "null"] },
                    "data": {}, "extMsg": { "type": ["string", "null"] }
                }
            } }
        }
    })
}

fn operation(route: &Route) -> Value {
    let parameters: Vec<Value> = route
        .params
        .iter()
        .map(|param| {
            let name = param.trim_end_matches('*');
            json!({ "name": name, "in": "query", "required": param.ends_with('*'), "schema": { "type": "string" } })
        })
        .collect();
    let envelope = json!({ "$ref": "#/components/schemas/Envelope" });
    let mut operation = json!({
        "operationId": format!("{} {}", route.method, route.path),
        "summary": route.summary,
        "tags": [if route.is_vendor() { "vendor" } else { "back door" }],
        "parameters": parameters,
        "responses": { "200": { "description": "every outcome, see the body code", "content": { "application/json": { "schema": envelope } } } }
    });
    if route.is_vendor() && !matches!(route.endpoint(), "emailPwdLogin" | "refreshToken") {
        operation["security"] = json!([{ "token": [] }]);
    }
    if !route.body.is_empty() {
        let names = |required: bool| route.body.iter().filter(move |field| !required || field.ends_with('*'));
        let fields: Map<String, Value> =
            names(false).map(|field| (field.trim_end_matches('*').to_owned(), json!({}))).collect();
        let required: Vec<&str> = names(true).map(|field| field.trim_end_matches('*')).collect();
        let schema = json!({ "type": "object", "properties": fields, "required": required });
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema } } });
    }
    operation
}
