# Rotations of one key whose account gets into trouble: Bags refuses its credentials, its user is suspended, it is deleted; and
# somebody deletes the Secret after the restart. demo/cellar.yaml; beside what happens in the depot. Sourced by demo/run; needs a
# node.

open_cellar() {
	open_account cellar user-7 >/dev/null
	show apply -f demo/cellar.yaml
	show -n cellar wait pods --all --for=condition=Ready --timeout=90s
}

wines_tell() { says cellar wines "$1" "$2"; }

wines_hold() { has_reason cellar wines OldKeyRevoked RotationHeld && wines_tell OldKeyRevoked "$1"; }

# As `ask_depot`: these are not counted either. TOKEN. Sets `old`.
ask_wines() {
	old=$(value cellar wines BAGS_API_KEY)
	values+=$old$'\n'
	show -n cellar annotate bkey wines "keys.bags.fm/rotate=$1" --overwrite
}

# What a person sees of it while its old key is valid: TYPE.
show_wines() {
	show get bkey -n cellar wines
	tell_condition cellar wines "$1"
	expect "answer to the old key of wines" "$(answer_to "$old_wines")" 200
}

# The account's token is what a file has: FILE.
set_token() {
	kubectl -n bags-system create secret generic bags-cellar --from-file=token="$1" --dry-run=client -o yaml |
		kubectl apply -f - 2>/dev/null
}

# --- Refused credentials -------------------------------------------------------------------------------------------

cellar_begins() {
	say "" && say "Somebody mistypes the token of the account cellar. A rotation of its key is asked for:"
	printf 'mistyped' >"$work/mistyped"
	set_token "$work/mistyped"
	ask_wines cellar && old_wines=$old
}

wines_are_refused() {
	await 60 "the rotation of wines cannot begin" wines_tell Rotating 'does not accept the agent token'
	expect "reason why it does not begin" "$(condition cellar wines Rotating reason)" RotationBlocked
	await 30 "with an event" has_event cellar wines RotationBlocked
	show_wines Rotating
	say "The token is corrected, and the rotation begins by itself:"
	set_token "$work/bags/user-7/token"
}

# --- The Secret is deleted after the restart -----------------------------------------------------------------------

# Until then a pod may be given the former Secret, and the message says until when.
wines_are_to_be_restarted() {
	wines_tell OldKeyRevoked 'Deployment "wine-web" (it was restarted for this switch already: if those pods stay, restart it yourself)' &&
		! wines_tell OldKeyRevoked 'a pod that is made before'
}

wines_lose_their_secret() {
	await 120 "wine-web has come up with the new key" wines_tell OldKeyRevoked 'no pod can hold key '
	expect "changes of wine-web" "$(changes_of cellar deployment/wine-web)" 1
	say "" && say "wine-web has been restarted. Somebody deletes the Secret of wines, which comes back:"
	show -n cellar delete secret wines
	await 90 "its pods are older than the Secret, and newer ones would not be" wines_are_to_be_restarted
	show_wines OldKeyRevoked
	say "What the message asks for:"
	show -n cellar rollout restart deployment/wine-web
}

# --- The user is suspended -----------------------------------------------------------------------------------------

# Bags suspends the user of an account, or no more: true or false.
suspend_user() {
	local user body="{\"suspended\":$1}"
	user=$(kubectl get bacct cellar -o 'jsonpath={.status.user}')
	request PATCH "/sandbox/users/$user" "Content-Type: application/json"$'\r\n'"Content-Length: ${#body}"$'\r\n\r\n'"$body" |
		sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p'
}

wines_are_suspended() {
	await 90 "wine-web has come up again" wines_tell OldKeyRevoked 'no pod can hold key '
	say "" && say "Bags suspends the user of the account. Then the old key of wines could go:"
	expect "what the sandbox answers" "$(suspend_user true)" 200
	patch_key cellar wines '{"spec":{"rotation":{"minOverlap":"3s"}}}'
	await 90 "the rotation of wines is held" wines_hold 'Bags does not let it use the service'
	await 30 "with an event" has_event cellar wines RotationHeld
	show get bkey -n cellar wines
	tell_condition cellar wines OldKeyRevoked
	expect "answer to the old key of wines, as to each key of its user" "$(answer_to "$old_wines")" 403
	say "It is suspended no more. That is looked at every ten minutes, and by another leader at once: the leading pod is killed."
	expect "what the sandbox answers" "$(suspend_user false)" 200
	await 30 "the leading operator is killed" kill_leader
}

# --- The account is deleted ----------------------------------------------------------------------------------------

wines_lose_their_account() {
	await 150 "the old key of wines is revoked" rotated cellar wines cellar
	expect "answer to the old key of wines" "$(answer_to "$old_wines")" 401
	patch_key cellar wines '{"spec":{"rotation":{"minOverlap":"1h"}}}'
	ask_wines again && old_wines=$old
	await 120 "the Secret of wines has the new key" has_another_value cellar wines BAGS_API_KEY "$old_wines"
	values+=$(value cellar wines BAGS_API_KEY)$'\n'
	say "" && say "Somebody deletes the account of wines in the middle of its second rotation:"
	show delete bacct cellar --wait=false
	await 60 "the rotation of wines is held" wines_hold 'stays until its ApiKeys are gone'
	show_wines OldKeyRevoked
	show get bacct cellar
	say "The account stays until its keys are gone. The application is not needed any more, nor is its key:"
	show -n cellar delete deployment wine-web
	show -n cellar delete bkey wines --wait=false
}

cellar_is_empty() {
	local new
	await 120 "the ApiKey wines is gone" is_gone cellar wines
	await 60 "the account cellar is gone" account_is_gone cellar
	expect "answer to the old key of wines" "$(answer_to "$old_wines")" 401
	kubectl delete namespace cellar --timeout=60s >/dev/null
}

account_is_gone() {
	local left
	left=$(kubectl get bacct -o name) && ! grep -q "/$1\$" <<<"$left"
}
