# Completion of hsd for fish; put it into ~/.config/fish/completions as hsd.fish.

function __hsd_candidates
    set -l candidates (env _HSD_LINE=(commandline --cut-at-cursor --current-process | string collect) hsd 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    end
end

complete --command hsd --no-files --arguments '(__hsd_candidates)'
