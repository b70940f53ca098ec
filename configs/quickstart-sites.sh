#!/usr/bin/env bash
# The quickstart with each client at a site of its own, on this machine: a SuperLink on loopback and a process for each
# site. `make quickstart-sites` installs flwr into .flower and runs this. It leaves runs/quickstart-sites, where
# sites/NAME.log is what each site says, and sites/NAME what it keeps to itself.
set -euo pipefail
cd "$(dirname "$0")/.."
fedplug=${FEDPLUG:-target/release/fedplug}
folder=runs/quickstart-sites.setup
sites="aggregation binding expression immunogenicity polyreactivity tm"
rm -rf "$folder" runs/quickstart-sites
mkdir -p "$folder"
port=$("${PYTHON:-python3}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true' EXIT
PYTHONPATH=.flower FLWR_HOME="$folder/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 \
	"${PYTHON:-python3}" .flower/bin/flower-superlink --insecure --isolation process --port "$port" \
	> "$folder/superlink.log" 2>&1 &

# The experiment is the quickstart's, with the sites' keys.
{ cat configs/quickstart.toml; echo; echo "[federation.sites]"; } > "$folder/experiment.toml"
for site in $sites; do
	"$fedplug" keys "$site" --output "$folder/$site.pem" | sed -n 's/.*\(sha256:[0-9a-f]*\).*/'"$site"' = "\1"/p' | head -1 \
		>> "$folder/experiment.toml"
	cat > "$folder/$site.toml" <<-END
		name = "$site"
		device = "cpu"
		[data]
		folder = "$PWD/configs"
		[allow]
		confirm = false
	END
	"$fedplug" join "$folder/$site.toml" --superlink "http://127.0.0.1:$port" > "$folder/$site.log" 2>&1 &
	programs="${programs-} $!"
done

"$fedplug" serve "$folder/experiment.toml" --name quickstart-sites --superlink "http://127.0.0.1:$port" "$@"
# The sites leave while the SuperLink is still there.
kill $programs
wait $programs 2>/dev/null || true
mkdir -p runs/quickstart-sites/sites
for site in $sites; do mv "$folder/$site" "$folder/$site.log" runs/quickstart-sites/sites/; done
rm -rf "$folder"
