//! The measured operations, as requests to each of the two APIs.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::connection::Request;
use crate::{
    argument_sets::ArgumentSet,
    client::Client,
    data_set::{DataSet, RowKind, SessionState, row_id},
    failure::Failure,
    roll::new_roll,
};

/// A measured operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The first page of the lobby.
    Lobby,
    /// A session with its participants.
    Details,
    /// The caller's profile.
    Profile,
    /// The newest fifty rolls of a session.
    History,
    /// A roll of a character's attribute.
    Roll,
    /// Taking a seat in a public session.
    Join,
}

/// All operations with their names.
pub const OPERATIONS: [(Operation, &str); 6] = [
    (Operation::Lobby, "lobby"),
    (Operation::Details, "session details"),
    (Operation::Profile, "own profile"),
    (Operation::History, "a session's rolls"),
    (Operation::Roll, "a roll"),
    (Operation::Join, "a join"),
];

/// An API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// PostgREST, the API of the platform (Supabase).
    PostgRest,
    /// The example web service.
    Service,
}

/// The size of a block of SHA-256 in bytes. The secret must not be longer, because HMAC would hash a longer secret
/// first.
const SHA256_BLOCK_BYTES: usize = 64;

/// A user with a signed token, and the session and the character in the user's requests.
#[derive(Clone, Debug)]
pub struct Caller {
    user: Uuid,
    session: Uuid,
    character: Uuid,
    token: String,
}

/// Returns one caller per argument set: a player of an active session.
pub async fn players(argument_sets: &[ArgumentSet], secret: &str, client: &mut Client) -> Result<Vec<Caller>, Failure> {
    let callers = argument_sets
        .iter()
        .map(|argument_set| caller_without_token(argument_set.player, argument_set.session, argument_set.character));
    add_tokens(callers.collect(), secret, client).await
}

/// Returns newcomers: users without a seat in any session. Each gets a different session to join, which is public and
/// waiting and has a free seat. The smaller of the numbers of such users and of such sessions limits the joins per run.
pub async fn newcomers(data_set: &DataSet, secret: &str, client: &mut Client) -> Result<Vec<Caller>, Failure> {
    let unstarted = (data_set.active_sessions..data_set.active_sessions + data_set.unstarted_sessions)
        .map(|number| data_set.session(number));
    let with_free_seat = unstarted.filter(|session| {
        session.is_public && session.state == SessionState::Waiting && session.seats_taken < session.max_players
    });
    let sessions_and_users = with_free_seat.zip(data_set.newcomer_numbers());
    let callers = sessions_and_users.map(|(session, user)| {
        caller_without_token(
            row_id(RowKind::User, user),
            row_id(RowKind::Session, session.number),
            row_id(RowKind::Character, user),
        )
    });
    add_tokens(callers.collect(), secret, client).await
}

/// Returns the statement that deletes the seats of these callers.
pub fn delete_seats_sql(callers: &[Caller]) -> String {
    let user_ids: Vec<String> = callers.iter().map(|caller| caller.user.to_string()).collect();
    format!("DELETE FROM session_players WHERE user_id = ANY ('{{{}}}')", user_ids.join(","))
}

/// Returns a caller whose token is still empty; [`add_tokens`] adds it.
fn caller_without_token(user: Uuid, session: Uuid, character: Uuid) -> Caller {
    Caller { user, session, character, token: String::new() }
}

/// Gives each caller a token, signed as Supabase signs tokens, with HMAC-SHA256. The database computes the hashes, so
/// that the benchmark needs no cryptographic library.
async fn add_tokens(mut callers: Vec<Caller>, secret: &str, client: &mut Client) -> Result<Vec<Caller>, Failure> {
    // The secret, combined with HMAC's inner and outer padding.
    let [inner_key, outer_key] = [0x36, 0x5c].map(|pad: u8| {
        let key = secret.bytes().chain(std::iter::repeat(0)).take(SHA256_BLOCK_BYTES);
        key.map(|byte| format!("{:02x}", byte ^ pad)).collect::<String>()
    });
    if secret.len() > SHA256_BLOCK_BYTES {
        return Err(Failure::Message(format!("the secret must have at most {SHA256_BLOCK_BYTES} bytes")));
    }
    // These two closures take and return SQL expressions. `translate` replaces `+` and `/`, and removes `=` and line
    // breaks.
    let base64url_sql = |bytes_sql: &str| format!("translate(encode({bytes_sql}, 'base64'), E'+/=\\n', '-_')");
    let base64url_of_text_sql = |text_sql: &str| base64url_sql(&format!("convert_to({text_sql}, 'UTF8')"));
    let header_sql = base64url_of_text_sql("'{\"alg\":\"HS256\",\"typ\":\"JWT\"}'");
    let expires_at = Utc::now().timestamp() + 24 * 60 * 60;
    let claims_sql = format!(
        "json_build_object('sub', id, 'exp', {expires_at}, 'aud', 'authenticated', 'role', 'authenticated')::text"
    );
    let encoded_claims_sql = base64url_of_text_sql(&claims_sql);
    let signature_sql = base64url_sql(&format!(
        "sha256('\\x{outer_key}'::bytea || sha256('\\x{inner_key}'::bytea || convert_to(unsigned, 'UTF8')))"
    ));
    let user_ids: Vec<String> = callers.iter().map(|caller| caller.user.to_string()).collect();
    let sql = format!(
        "SELECT unsigned || '.' || {signature_sql}
         FROM unnest('{{{}}}'::text[]) WITH ORDINALITY AS users (id, number)
         CROSS JOIN LATERAL (SELECT {header_sql} || '.' || {encoded_claims_sql} AS unsigned) AS tokens
         ORDER BY number",
        user_ids.join(",")
    );
    for (caller, row) in callers.iter_mut().zip(client.fetch_rows(&sql).await?) {
        caller.token = row.into_iter().next().unwrap_or_default();
    }
    Ok(callers)
}

/// Returns the request with which the caller runs an operation through an API.
pub fn request_for(api: Api, operation: Operation, caller: &Caller) -> Result<Request, Failure> {
    let Caller { user, session, character, token } = caller;
    let mut headers = format!("Authorization: Bearer {token}\r\nAccept: application/json\r\n");
    let mut body = String::new();
    let (method, path) = match (api, operation) {
        (Api::Service, Operation::Lobby) => ("GET", "/api/lobby".to_owned()),
        (Api::Service, Operation::Details) => ("GET", format!("/api/sessions/{session}")),
        (Api::Service, Operation::Profile) => ("GET", "/api/me".to_owned()),
        (Api::Service, Operation::History) => ("GET", format!("/api/sessions/{session}/rolls")),
        (Api::Service, Operation::Roll) => {
            let argument_set = ArgumentSet { session: *session, character: *character, ..ArgumentSet::default() };
            body = serde_json::to_string(&new_roll(&argument_set)?)?;
            ("POST", "/api/rolls".to_owned())
        }
        (Api::Service, Operation::Join) => {
            body = json!({ "character_id": character }).to_string();
            ("POST", format!("/api/sessions/{session}/seat"))
        }
        // The filter is `eq.true` because the planner would not use the lobby's index for `is.true`. PostgREST cannot
        // compare two columns, so its lobby includes full sessions; both APIs return a page of twenty rows.
        (Api::PostgRest, Operation::Lobby) => {
            let select = "id,status,scheduled_start,looking_for,seats_taken,max_players,created_at,seer_id,\
                          seer:users!sessions_seer_id_fkey(display_name),\
                          adventure:adventures(id,name,thumbnail_url,difficulty,estimated_duration)";
            let order = "scheduled_start.asc.nullslast,created_at.desc";
            // As in the web service's lobby, sessions whose scheduled start is more than six hours ago are omitted.
            let earliest_start = (Utc::now() - TimeDelta::hours(6)).format("%Y-%m-%dT%H:%M:%SZ");
            let filter = format!(
                "is_public=eq.true&status=in.(waiting,starting_soon)\
                 &or=(scheduled_start.is.null,scheduled_start.gte.{earliest_start})"
            );
            ("GET", format!("/sessions?select={select}&{filter}&order={order}&limit=20"))
        }
        (Api::PostgRest, Operation::Details) => ("GET", format!("/rpc/get_session_details?p_session_id={session}")),
        (Api::PostgRest, Operation::Profile) => {
            headers = format!("Authorization: Bearer {token}\r\nAccept: application/vnd.pgrst.object+json\r\n");
            ("GET", format!("/profiles?select=*&id=eq.{user}"))
        }
        (Api::PostgRest, Operation::History) => {
            ("GET", format!("/dice_rolls?select=*&session_id=eq.{session}&order=created_at.desc,id.asc&limit=50"))
        }
        // The same roll as the web service's, which `new_roll` returns.
        (Api::PostgRest, Operation::Roll) => {
            headers.push_str("Prefer: return=representation\r\n");
            let (attribute, roll_type) = ("might", "attribute_check");
            body = json!({ "session_id": session, "character_id": character, "attribute": attribute, "difficulty": 9,
                           "roll_type": roll_type })
            .to_string();
            ("POST", "/dice_rolls?select=*".to_owned())
        }
        (Api::PostgRest, Operation::Join) => {
            headers.push_str("Prefer: return=representation\r\n");
            body = json!({ "session_id": session, "user_id": user, "character_id": character }).to_string();
            ("POST", "/session_players?select=*".to_owned())
        }
    };
    Ok(Request { method, path, headers, body })
}
