# Many rotations, five ApiKeys side by side, so that all ten slots of the account are taken in the middle. Sourced by
# demo/run; needs a node.

# Namespace, name, Secret and field of each ApiKey.
soaked="shop web-dashboard web-dashboard-bags BAGS_API_KEY
shop mobile-backend mobile-backend bags-api-key.txt
shop background-jobs background-jobs BAGS_API_KEY
shop-staging web-dashboard web-dashboard BAGS_API_KEY
shop-development web-dashboard web-dashboard BAGS_API_KEY"

in_staging="shop-staging web-dashboard deployment/web-dashboard"

prepare_soak() {
	local namespace name rest url
	start_callers
	url=$(value shop web-dashboard-bags BAGS_BASE_URL)
	# A job ends after five seconds, the mobile backend at once.
	kubectl -n shop patch configmap bags-settings --type=merge -p '{"data":{"CALLS":"10","LINGER":"false"}}' >/dev/null
	for namespace in shop-development shop-staging; do
		kubectl -n "$namespace" create configmap bags-settings --from-literal=BAGS_BASE_URL="$url" >/dev/null
		sed "s/shop-development/$namespace/" demo/holds.yaml | kubectl apply -f - >/dev/null
		show -n "$namespace" rollout status deployment/web-dashboard --timeout=90s
	done
	show -n shop rollout status deployment/mobile-backend --timeout=90s
	note_templates "$held"
	note_templates "$in_staging"
	note_templates "$never_restarted" 0
	users+=$held$'\n'$in_staging$'\n'$never_restarted$'\n'
	while read -r namespace name rest; do shorten_overlap "$namespace" "$name"; done <<<"$soaked"
}

# In this round pods of the mobile backend take their minute to end; in that one the dashboard in development does not come up;
# in the next one a job runs through the switch; in the last one the caller outside does not take the new key.
slow_round=3 failing_round=5 job_round=7 forgetful_round=9

# What pods that start from now on are told, before a round.
change_settings() {
	case $1 in
	$((slow_round - 1))) linger true ;;
	"$slow_round") linger false ;;
	"$failing_round") set_base_url "" ;;
	$((job_round - 1))) jobs_call "$job_calls" ;;
	"$job_round") meet_job ;;
	"$forgetful_round") : >"$work/forgotten" ;;
	esac
}

# So many times, each job that starts from now on.
jobs_call() { kubectl -n shop patch configmap bags-settings --type=merge -p "{\"data\":{\"CALLS\":\"$1\"}}" >/dev/null; }

no_job_runs() { ! job_runs; }

# A job has just begun, and takes its time. The next ones are short again. Sets `job_pod`.
meet_job() {
	await 90 "the CronJob's last job has ended" no_job_runs
	await 150 "the CronJob's job runs" job_runs
	job_pod=$(phases shop app=settlement | sed -n 's/^Running //p' | head -n 1)
	jobs_call 10
}

# The job has begun before the switch, and runs after it, with the old key: VALUE.
show_job() {
	await 30 "the Secret of the job has the new key" has_another_value shop background-jobs BAGS_API_KEY "$1"
	expect "answer to the job's key after the switch" "$(answer_to "$1")" 200
	expect "the job's pod after the switch" "$(phases shop app=settlement | grep -xF "Running $job_pod")" "Running $job_pod"
	say "  the job in $job_pod runs through the switch"
}

job_was_answered() { [ "$(grep -c "^shop/settlement $job_pod/[^ ]* .*GET /auth/me: 200\$" "$work/callers.log")" = "$job_calls" ]; }

linger() { kubectl -n shop patch configmap bags-settings --type=merge -p "{\"data\":{\"LINGER\":\"$1\"}}" >/dev/null; }

# Held for the caller outside, who uses the old key until he is told of the new one: VALUE.
show_forgetful_caller() {
	await 150 "an unknown caller holds the rotation" says shop web-dashboard OldKeyRevoked "an unknown caller uses it"
	expect "answer to the old key meanwhile" "$(answer_to "$1")" 200
	rm "$work/forgotten"
}

# soak COUNT: so many rotations. In every other round the leading operator is killed at a random moment.
soak() {
	local begin=$SECONDS round=0 since killer namespace name secret field commit old_mobile old_jobs old_development old_web job_pod
	commit=$(git -c safe.directory="$root" rev-parse --short HEAD)
	git -c safe.directory="$root" diff --quiet HEAD || commit+=" with changes"
	prepare_soak
	ask=quietly
	while [ "$(grep -c . <<<"$begun")" -lt "$1" ]; do
		round=$((round + 1)) since=$SECONDS killer=""
		if [ $((round % 2)) = 0 ]; then
			kill_sometime 9>&- &
			killer=$!
		fi
		change_settings "$round"
		while read -r namespace name secret field; do
			begin_rotation "$namespace" "$name" "round-$round" "$secret" "$field"
			case $namespace/$name in
			shop/mobile-backend) old_mobile=$old ;;
			shop/background-jobs) old_jobs=$old ;;
			shop-development/web-dashboard) old_development=$old ;;
			shop/web-dashboard) old_web=$old ;;
			esac
		done <<<"$soaked"
		case $round in
		"$slow_round") show_slow_end "$old_mobile" ;;
		"$failing_round") show_failed_rollout "$old_development" ;;
		"$job_round") show_job "$old_jobs" ;;
		"$forgetful_round") show_forgetful_caller "$old_web" ;;
		esac
		while read -r namespace name secret field; do
			end_rotation 400 "round $round: the old key of $namespace/$name is revoked" "$namespace" "$name" "round-$round"
		done <<<"$soaked"
		if [ "$round" = "$job_round" ]; then await 30 "each call of the job in $job_pod is answered" job_was_answered; fi
		case $killer/$round in
		"/$slow_round" | "/$failing_round" | "/$job_round" | "/$forgetful_round") ;;
		/*) rotation_took=$((SECONDS - since + 1)) ;;
		*) wait "$killer" || fail "the leading operator could not be killed" ;;
		esac
		say "  round $round: five rotations in $((SECONDS - since)) s, $(calls_failed) of $(calls_made) calls failed"
		expect "failed calls of the applications" "$(calls_failed)" 0
	done
	tell_kills
	tell_rotations
	kubectl -n bags-system get pods
	write_soak "$commit" "$((SECONDS - begin))"
}

# What is kept of it, in docs/soak.md: of which commit, after how many seconds.
write_soak() {
	cat >docs/soak.md <<-END
		# The soak of rotations

		Written by \`make soak\`; [testing.md](testing.md#rotations-on-a-real-node) says what runs. On commit $1, in
		$(($2 / 60)) minutes on $(getconf _NPROCESSORS_ONLN) cores:

		\`\`\`
		$(grep '^rotation: ' "$shown")
		\`\`\`

		Five ApiKeys of one account were rotated side by side on a real node, so that all ten slots were taken in the middle of each
		round, while Deployments, a StatefulSet, a DaemonSet, a CronJob's jobs and a caller outside of the cluster used their keys. The
		leading operator was killed $(grep -c 'leading operator was killed' "$shown") times, at random moments between
		the begin of a round and its end; by the phase in which one of the ApiKeys was, so many times each:

		$(kills_by_phase | sed 's/^/- /')
	END
	if [ -s target/soak-certificates.log ]; then
		cat >>docs/soak.md <<-END

			Before it the webhook's certificates were renewed under twenty calls a second, each answered:

			\`\`\`
			$(grep '^soak: ' target/soak-certificates.log)
			\`\`\`
		END
	fi
	if [ "$(grep -c . <<<"$begun")" -lt 100 ]; then
		# shellcheck disable=SC2016 # Markdown
		printf '\nThis was a shorter run than the hundred rotations of `make soak`.\n' >>docs/soak.md
	else
		cat >>docs/soak.md <<-END

			In one round the pods of a Deployment used their old key for the minute that they had to end; in another one a rollout crash-looped
			until it was mended; in a third one a job that had begun before the switch used its old key until it had ended; in a fourth one the caller
			outside did not take the new key until somebody told it to. These rotations waited, with the old key valid, and ended by themselves.
		END
	fi
}
