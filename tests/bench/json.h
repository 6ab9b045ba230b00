/* JSON, as much of it as the fake engine needs: to see that a body is well-formed, and to find a member of its object. */
#ifndef STOKER_BENCH_JSON_H
#define STOKER_BENCH_JSON_H

#include "common.h"

#include <ctype.h>

enum { DEPTH_LIMIT = 64 };

static const char *skip_space(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') p++;
    return p;
}

static const char *skip_string(const char *p) {
    if (*p++ != '"') return NULL;
    for (; *p != '"'; p++) {
        if ((unsigned char)*p < 0x20) return NULL; /* the NUL behind the body, too */
        if (*p == '\\' && !*++p) return NULL;
    }
    return p + 1;
}

static const char *skip_word(const char *p) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++)
        if (!strncmp(p, words[i], strlen(words[i]))) return p + strlen(words[i]);
    const char *digits = p + (*p == '-');
    if (!isdigit((unsigned char)*digits)) return NULL;
    return digits + strspn(digits, "0123456789+-.eE");
}

static const char *skip_value(const char *p, int depth) {
    p = skip_space(p);
    if (*p == '"') return skip_string(p);
    if (*p != '{' && *p != '[') return skip_word(p);
    if (depth == DEPTH_LIMIT) return NULL;
    char closing = *p == '{' ? '}' : ']';
    p = skip_space(p + 1);
    if (*p == closing) return p + 1;
    for (;;) {
        if (closing == '}') {
            if (!(p = skip_string(skip_space(p)))) return NULL;
            p = skip_space(p);
            if (*p++ != ':') return NULL;
        }
        if (!(p = skip_value(p, depth + 1))) return NULL;
        p = skip_space(p);
        if (*p == closing) return p + 1;
        if (*p++ != ',') return NULL;
    }
}

static bool is_json_object(const char *body, size_t length) {
    const char *p = skip_space(body);
    if (*p != '{' || !(p = skip_value(p, 0))) return false;
    return skip_space(p) == body + length;
}

/* The value of a member of a well-formed object, or NULL. */
static const char *member(const char *body, const char *name) {
    size_t length = strlen(name);
    const char *found = NULL, *p = skip_space(skip_space(body) + 1);
    while (*p != '}') {
        const char *key = p + 1, *value;
        p = skip_string(p);
        bool same = (size_t)(p - 1 - key) == length && !memcmp(key, name, length);
        value = skip_space(skip_space(p) + 1);
        if (same) found = value;
        p = skip_space(skip_value(value, 1));
        if (*p == ',') p = skip_space(p + 1);
    }
    return found;
}

#endif
