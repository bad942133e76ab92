# Proposes what `make update` did: as a pull request where UPDATE_TOKEN may push one, else as an issue
# with the diff. The token of a workflow may not push workflow files, so it takes one of the team's.
set -eu

value() { make -s --no-print-directory show WHAT="update.$1" | cut -d= -f2-; }

test -f reports/update.json || {
    echo "error: reports/update.json is not there; run \`make update\` first" >&2
    exit 1
}
command -v gh >/dev/null || {
    echo "error: gh, GitHub's client, is not installed; see https://cli.github.com" >&2
    exit 1
}
to=$(value to)
if [ "$(value changed)" = "" ]; then
    echo "$to is the newest version: there is nothing to propose"
    exit 0
fi
title="Update from ciclo $(value from) to $to"
branch="ciclo-$to"

if [ "${UPDATE_TOKEN:-}" != "" ] && [ "$(value conflicts)$(value kept)" = "" ]; then
    if git ls-remote --exit-code --heads origin "$branch" >/dev/null; then
        echo "the branch $branch is there: it was proposed already"
        exit 0
    fi
    git switch --quiet --create "$branch"
    git add --all
    git -c user.name=ciclo -c user.email=ciclo@localhost commit --quiet --message "$title"
    gh auth setup-git
    git push --quiet origin "$branch"
    gh pr create --head "$branch" --title "$title" \
        --body "\`make update\` made this. What is yours is as it was; the checks below say whether all still works."
    exit 0
fi

if [ "$(gh issue list --state open --search "in:title \"$title\"" --json number --jq length)" != 0 ]; then
    echo "an open issue says so already: $title"
    exit 0
fi
{
    echo "\`make update\` takes it in."
    if [ "${UPDATE_TOKEN:-}" = "" ]; then
        echo "This would be a pull request, had the workflow a secret UPDATE_TOKEN that may write contents,"
        echo "pull requests and workflows."
    fi
    echo
    for name in $(value conflicts) $(value kept); do
        echo "- to be looked at by a person: $name"
    done
    echo
    echo '~~~~~diff'
    git diff HEAD | head -c 50000
    echo '~~~~~'
} >reports/update.md
gh issue create --title "$title" --body-file reports/update.md
