# Completion of hsd for bash; load it with: eval "$(hsd completion bash)"

_hsd() {
    local line="${COMP_LINE:0:COMP_POINT}" breaks="${COMP_WORDBREAKS//[^:=]/}" kept="" candidate
    COMPREPLY=()
    if [[ -n $breaks ]]; then
        # To bash a new word begins after these: what stands before them must not be given again.
        kept="${line##*[[:space:]]}"
        kept="${kept%"${kept##*[$breaks]}"}"
    fi
    while IFS=$'\t' read -r candidate _; do
        printf -v candidate %q "${candidate#"$kept"}"
        COMPREPLY+=("$candidate")
    done < <(_HSD_LINE="$line" "$1" 2>/dev/null)
}

complete -o default -F _hsd hsd
