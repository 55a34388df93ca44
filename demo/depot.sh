# Rotations in the middle of which something goes wrong, side by side, each of an application of demo/depot.yaml: something takes
# the operator's mark away; a rollout fails that had come up; the way back is cut off; the new key is revoked. In a foyer, people
# are to revoke the old keys, and do not. In a cellar it is the account that gets into trouble (demo/cellar.sh). Sourced by demo/run; needs a node.

in_depot="depot ramps deployment/ramp-web
depot lifts deployment/lift-web
depot lifts pod/lift-spare
foyer doors deployment/door-web"

open_depot() {
	open_account depot user-5 >/dev/null
	open_account foyer user-6 >/dev/null
	# Of four ApiKeys, all of which are rotated at once.
	kubectl patch bacct depot --type=merge -p '{"spec":{"limit":10}}' >/dev/null
	kubectl -n depot create configmap sign-settings --from-literal=BAGS_BASE_URL="$(base_url)" >/dev/null
	show apply -f demo/depot.yaml
	show -n depot wait pods --all --for=condition=Ready --timeout=90s
	show -n foyer wait pods --all --for=condition=Ready --timeout=90s
	users+=$in_depot$'\n'
	open_cellar
}

# --- What is asked -------------------------------------------------------------------------------------------------

# NAME of an ApiKey of the depot. Sets `old`. Those that are asked for so do not end with the death of their old key, and are not
# counted.
ask_depot() {
	old=$(value depot "$1" BAGS_API_KEY)
	values+=$old$'\n'
	show -n depot annotate bkey "$1" keys.bags.fm/rotate=depot --overwrite
}

# What people read of an ApiKey's old key: NAME WORDS.
depot_tells() { says depot "$1" OldKeyRevoked "$2"; }

depot_holds() { has_reason depot "$1" OldKeyRevoked RotationHeld && depot_tells "$1" "$2"; }

# What a person sees of it: NAME, and the old key, with what Bags has to answer to it.
show_depot() {
	show get bkey -n depot "$1"
	tell_condition depot "$1" OldKeyRevoked
	expect "answer to the old key of $1" "$(answer_to "$2")" "$3"
}

key_id() { kubectl -n "$1" get bkey "$2" -o 'jsonpath={.status.current.keyId}'; }

# NAMESPACE NAME ID.
has_another_key() {
	local id
	id=$(key_id "$1" "$2") && [ -n "$id" ] && [ "$id" != "$3" ]
}

# An x for each slot in this state: ACCOUNT STATE.
slots_in() { kubectl get bacct "$1" -o "jsonpath={range .status.slots[?(@.state==\"$2\")]}x{end}"; }

revokes_nothing() {
	local left
	left=$(slots_in "$1" Revoking) && [ -z "$left" ]
}

is_gone() { # NAMESPACE NAME: of an ApiKey
	local left
	left=$(kubectl -n "$1" get bkey -o name) && ! grep -q "/$2\$" <<<"$left"
}

set_signs_url() { show -n depot patch configmap sign-settings -p "{\"data\":{\"BAGS_BASE_URL\":\"$1\"}}"; }

# --- Something takes the mark away ---------------------------------------------------------------------------------

# As a tool does that puts the manifest back as it is in git. Nothing else of the template is touched.
keep_the_template() {
	local mark='jsonpath={.spec.template.metadata.annotations.restart\.keys\.bags\.fm/ramps}'
	trap 'exit 0' TERM
	while sleep 0.3; do
		if [ -n "$(kubectl -n depot get deployment ramp-web -o "$mark")" ]; then
			kubectl -n depot patch deployment ramp-web --type=json \
				-p '[{"op":"remove","path":"/spec/template/metadata/annotations/restart.keys.bags.fm~1ramps"}]' || true
		fi
	done
}

ramps_wait_for_people() {
	await 120 "the rotation of ramps tells of the mark" depot_tells ramps \
		'Deployment "ramp-web" (something took the annotation restart.keys.bags.fm/... from its pod template twice: restart it yourself now'
	say "" && say "Whatever keeps the template of ramp-web as it is in git has taken the mark off it, and again."
	say "By default people are alarmed after a week; here at once:"
	patch_key depot ramps '{"spec":{"rotation":{"maxOverlap":"10s"}}}'
	await 60 "the rotation of ramps is held" has_reason depot ramps OldKeyRevoked RotationHeld
	await 30 "with an event" has_event depot ramps RotationHeld
	show_depot ramps "$old_ramps" 200
	expect "changes of ramp-web, two marks that were set and taken" "$(changes_of depot deployment/ramp-web)" 4
	say "It is told to leave the annotation alone, and somebody does what the message asks for:"
	stop_last || true
	show -n depot rollout restart deployment/ramp-web
}

# --- A rollout fails that had come up ------------------------------------------------------------------------------

lifts_get_a_bad_image() {
	await 90 "lift-web has come up with the new key" depot_tells lifts '; restarted: Deployment "lift-web"'
	await 30 "the pod without an owner is waited for" depot_tells lifts 'lift-spare (on '
	say "" && say "lift-web has come up with the new key, a pod still has the old one. Somebody mistypes the image of lift-web:"
	show -n depot set image deployment/lift-web caller=bags-consumer:mistyped
}

lifts_fail_since() {
	await 90 "the rollout of lift-web fails since" depot_holds lifts \
		'Deployment "lift-web" came up with the key that the Secret holds, and its rollout fails since: '
	await 30 "with an event" has_event depot lifts RotationHeld
	show -n depot get pods -l key=lifts
	show_depot lifts "$old_lifts" 200
}

# For long enough that nobody takes it for a consequence of what comes next.
lift_web_has_failed() {
	local at
	at=$(kubectl -n depot get deployment lift-web \
		-o 'jsonpath={.status.conditions[?(@.reason=="ProgressDeadlineExceeded")].lastTransitionTime}') &&
		[ -n "$at" ] && [ $(($(date +%s) - $(date -d "$at" +%s))) -ge 10 ]
}

lifts_had_failed() {
	await 60 "lift-web has failed for ten seconds" lift_web_has_failed
	say "" && say "The last pod with the old key goes:"
	show -n depot delete pod lift-spare
	await 60 "the rollout of lift-web had failed before" depot_holds lifts \
		'the rollout of Deployment "lift-web" had failed before the last pod with the old key went: '
	show_depot lifts "$old_lifts" 200
	say "It is mended, and the rotation goes on by itself:"
	show -n depot rollout undo deployment/lift-web
}

# --- The way back is cut off ---------------------------------------------------------------------------------------

signs_lose_their_old_key() {
	await 60 "sign-web has ended its old pods, and does not come up" depot_tells signs \
		'these are not up with the newer one yet: Deployment "sign-web"'
	say "" && say "No pod of sign-web has the old key any more. Somebody revokes it on Bags' page:"
	expect "what the page answers" "$(revoke_by_hand "$old_signs_id")" 200
}

signs_have_no_way_back() {
	await 120 "sign-web does not come up, and there is no way back" depot_holds signs \
		'there is no way back, as Bags does not accept key '
	depot_tells signs 'Deployment "sign-web" does not come up with the new key: ' || fail "the message does not name sign-web"
	await 30 "with an event" has_event depot signs RotationHeld
	show -n depot get pods -l app=sign-web
	show_depot signs "$old_signs" 401
	has_another_value depot signs BAGS_API_KEY "$old_signs" || fail "the Secret of signs went back to a key that is dead"
	say "It is mended:"
	set_signs_url "$(base_url)"
	show -n depot delete pods -l app=sign-web --wait=false
}

signs_go_on() {
	await 120 "the rotation of signs goes on" has_reason depot signs OldKeyRevoked Rotating
	# No list shows a revoked key: that it was not used either is told by none.
	await 90 "the overlap without evidence begins" depot_tells signs 'the account cannot show that it is out of use'
	tell_condition depot signs OldKeyRevoked
	expect "changes of sign-web" "$(changes_of depot deployment/sign-web)" 1
	values+=$(value depot signs BAGS_API_KEY)$'\n'
	say "" && say "It is held no more, and would wait for a day. The application is not needed that long:"
	show -n depot delete deployment sign-web
	show -n depot delete bkey signs --wait=false
}

# --- The new key is revoked ----------------------------------------------------------------------------------------

gates_lose_their_new_key() {
	local id
	await 60 "the Secret of gates has the new key" has_another_value depot gates BAGS_API_KEY "$old_gates"
	await 30 "its id is known" has_another_key depot gates "$old_gates_id"
	id=$(key_id depot gates) new_gates=$(value depot gates BAGS_API_KEY)
	values+=$new_gates$'\n'
	say "" && say "Somebody takes the new key of gates for one that nobody needs, and revokes it on Bags' page:"
	expect "what the page answers" "$(revoke_by_hand "$id")" 200
}

gate_web_is_answered() { grep -q "GET /auth/me: $1\$" <<<"$(kubectl -n depot logs deployment/gate-web --tail=3)"; }

gates_are_given_up() {
	await 120 "the rotation of gates is held" depot_holds gates ' is in the Secret, and Bags does not accept it any more; key '
	depot_tells gates ' is not revoked: see who revoked the other one. A key that is revoked does not come back: annotate this ApiKey with ' ||
		fail "the message does not say what to do"
	await 30 "with an event" has_event depot gates RotationHeld
	await 60 "calls of gate-web fail" gate_web_is_answered 401
	show -n depot logs deployment/gate-web --tail=1
	show_depot gates "$old_gates" 200
	expect "answer to the new key of gates" "$(answer_to "$new_gates")" 401
	expect "changes of gate-web" "$(changes_of depot deployment/gate-web)" 1
	say "A key that was revoked does not come back. The ApiKey is made anew:"
	show -n depot annotate bkey gates keys.bags.fm/delete-now=true
	show -n depot delete bkey gates --wait=false
}

gates_are_made_anew() {
	await 150 "the ApiKey gates is gone" is_gone depot gates
	expect "answer to the old key of gates" "$(answer_to "$old_gates")" 401
	say "" && say "\$ kubectl apply -f -   # ApiKey gates, as it was"
	kubectl apply -f - <<-END 2>&1 | tee -a "$shown"
		apiVersion: keys.bags.fm/v1alpha1
		kind: ApiKey
		metadata: {name: gates, namespace: depot}
		spec:
		  accountRef: {name: depot}
		  environment: production
		  rotation: {minOverlap: 3s, quietFor: 3s}
	END
	show -n depot wait --for=condition=Ready bkey/gates --timeout=90s
	show -n depot rollout restart deployment/gate-web
	await 90 "gate-web is answered again" gate_web_is_answered 200
	values+=$(value depot gates BAGS_API_KEY)$'\n'
	expect "answer to the key of gates" "$(answer_to "$(value depot gates BAGS_API_KEY)")" 200
}

# --- Keys that wait for people -------------------------------------------------------------------------------------

doors_have_so_many() { [ "$(slots_in foyer Revoking)" = "$1" ]; } # an x for each

person_is_told() { grep -qF "$1" <<<"$(account_condition foyer RevocationNeedsPerson message)"; }

ask_doors() { begin_rotation foyer doors "$1" doors BAGS_API_KEY; }

one_key_of_doors_waits() {
	await 120 "the first old key of doors waits for a person" doors_have_so_many x
	await 60 "a person is asked to revoke it" account_says foyer RevocationNeedsPerson
	expect_answers foyer doors
	say "" && say "The first old key of doors waits for a person. A second rotation is asked for:"
	ask_doors second
}

two_keys_of_doors_wait() {
	local name names
	await 150 "two old keys of doors wait for a person" doors_have_so_many xx
	expect_answers foyer doors
	names=$(kubectl get bacct foyer -o 'jsonpath={.status.slots[?(@.state=="Revoking")].keyName}')
	expect "names of the keys that wait" "$(wc -w <<<"$names" | tr -d ' ')" 2
	for name in $names; do await 60 "a person is asked to revoke $name" person_is_told "key \"$name\""; done
	person_is_told 'spec.revocation.mode is Person' || fail "nobody is told why a person has to revoke"
	say "" && say "So does the second one. A third rotation is asked for:"
	ask_doors third
	old_doors=$old
	await 60 "no third rotation of doors begins" doors_are_blocked
	for name in $names; do says foyer doors Rotating "$name" || fail "it is not said that $name is waited for"; done
	await 30 "with an event" has_event foyer doors RotationBlocked
	show get bkey -n foyer doors
	tell_condition foyer doors Rotating
	tell_condition foyer doors OldKeyRevoked
	say "  BagsAccount foyer: RevocationNeedsPerson: $(account_condition foyer RevocationNeedsPerson message)"
	expect "answer to the key of doors" "$(answer_to "$old_doors")" 200
	expect "keys of doors that wait" "$(slots_in foyer Revoking)" xx
	say "Somebody revokes one of them on Bags' page:"
	expect "what the page answers" \
		"$(revoke_by_hand "$(kubectl get bacct foyer -o 'jsonpath={.status.slots[?(@.state=="Revoking")].keyId}' | cut -d ' ' -f 1)")" 200
}

doors_are_blocked() {
	has_reason foyer doors Rotating RotationBlocked &&
		says foyer doors Rotating 'is proven dead; then another key is made; BagsAccount "foyer" says whether a person has to act'
}

doors_go_on() {
	await 150 "the third rotation of doors begins by itself" has_another_value foyer doors BAGS_API_KEY "$old_doors"
	say "" && say "With one of the two proven dead, the third rotation has begun by itself. From now on the operator revokes again:"
	show patch bacct foyer --type=merge -p '{"spec":{"revocation":{"mode":"Auto"}}}'
	end_rotation 150 "the old keys of doors are revoked" foyer doors third
	expect "answer to the old key of doors" "$(answer_to "$old_doors")" 401
	show get bkey -n foyer doors
}

# --- All of them ---------------------------------------------------------------------------------------------------

depot_begins() {
	say "" && say "In the foyer keys are revoked by people:"
	show patch bacct foyer --type=merge -p '{"spec":{"revocation":{"mode":"Person"}}}'
	say "" && say "Somebody mistypes the base URL of sign-web. Something takes off the template of ramp-web what is not in git."
	say "Then a rotation of each key is asked for:"
	set_signs_url ""
	start gitops keep_the_template
	old_signs_id=$(key_id depot signs) old_gates_id=$(key_id depot gates)
	ask_depot gates && old_gates=$old
	ask_depot signs && old_signs=$old
	begin_rotation depot lifts depot lifts BAGS_API_KEY && old_lifts=$old
	begin_rotation depot ramps depot ramps BAGS_API_KEY && old_ramps=$old
	ask_doors first
	cellar_begins
}

# Restarts by the operator; changes by whatever took its mark away, and by people. A mark that was taken is set once more. Of
# sign-web and gate-web nothing is counted, nor are their rotations, which did not end.
count_depot() {
	count_changes depot deployment/ramp-web 2 3
	count_changes depot deployment/lift-web 1 2
	count_changes foyer deployment/door-web 3 0
}

# In the order in which things happen.
depot() {
	local begin=$SECONDS old_ramps old_lifts old_signs old_signs_id old_gates old_gates_id new_gates old_doors
	open_depot
	depot_begins
	wines_are_refused
	gates_lose_their_new_key
	signs_lose_their_old_key
	lifts_get_a_bad_image
	wines_lose_their_secret
	one_key_of_doors_waits
	gates_are_given_up
	lifts_fail_since
	lifts_had_failed
	signs_have_no_way_back
	two_keys_of_doors_wait
	ramps_wait_for_people
	wines_are_suspended
	signs_go_on
	end_rotation 150 "the old key of lifts is revoked" depot lifts depot
	gates_are_made_anew
	wines_lose_their_account
	end_rotation 150 "the old key of ramps is revoked" depot ramps depot
	for old in "$old_lifts" "$old_ramps"; do expect "answer to an old key" "$(answer_to "$old")" 401; done
	doors_go_on
	cellar_is_empty
	await 150 "the ApiKey signs is gone" is_gone depot signs
	await 120 "no key of the depot is being revoked any more" revokes_nothing depot
	show get events -n depot --field-selector reason=RotationHeld
	show get bkey -n depot
	count_depot
	# While their ApiKeys are there, or it would be the deletion that ended them.
	expect "old keys that are alive" "$(old_keys_alive)" 0
	expect_ledgers_to_be_right
	close_place depot
	close_place foyer
	say "-- nine rotations in the middle of which something went wrong, six of which ended: $((SECONDS - begin)) s"
}
