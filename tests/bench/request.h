/* The head and the framing of a request, read strictly. */
#ifndef STOKER_BENCH_REQUEST_H
#define STOKER_BENCH_REQUEST_H

#include "common.h"

#include <ctype.h>
#include <limits.h>

enum { HEAD_LIMIT = 65536, BODY_LIMIT = 64 << 20 };

typedef struct {
    const char *method, *target;
    size_t method_length, target_length;
    size_t content_length;
    bool has_length, chunked, keep_alive;
    int hosts;
} head;

static bool is_token(const char *p, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)p[i]) && !memchr("!#$%&'*+-.^_`|~", p[i], 15)) return false;
    return length > 0;
}

static bool is(const char *p, size_t length, const char *name) {
    return length == strlen(name) && !strncasecmp(p, name, length);
}

/* These return what is wrong, or NULL. */

static const char *read_request_line(head *h, const char *p, const char *end) {
    const char *space = memchr(p, ' ', (size_t)(end - p));
    if (!space || !is_token(p, (size_t)(space - p))) return "the method";
    h->method = p;
    h->method_length = (size_t)(space - p);
    h->target = space + 1;
    space = memchr(h->target, ' ', (size_t)(end - h->target));
    if (!space || *h->target != '/') return "the target";
    h->target_length = (size_t)(space - h->target);
    if (!is(space + 1, (size_t)(end - space - 1), "HTTP/1.1")) return "the version";
    return NULL;
}

static const char *read_header(head *h, const char *p, const char *end) {
    const char *colon = memchr(p, ':', (size_t)(end - p));
    if (!colon || !is_token(p, (size_t)(colon - p))) return "a header's name";
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    for (const char *q = value; q < end; q++)
        if ((unsigned char)*q < 0x20 && *q != '\t') return "a header's value";
    size_t name_length = (size_t)(colon - p), length = (size_t)(end - value);
    if (is(p, name_length, "content-length")) {
        if (h->has_length || !length || length > 9) return "the Content-Length";
        for (size_t i = 0; i < length; i++) {
            if (!isdigit((unsigned char)value[i])) return "the Content-Length";
            h->content_length = h->content_length * 10 + (size_t)(value[i] - '0');
        }
        h->has_length = true;
    } else if (is(p, name_length, "transfer-encoding")) {
        if (h->chunked || !is(value, length, "chunked")) return "the Transfer-Encoding";
        h->chunked = true;
    } else if (is(p, name_length, "host")) {
        h->hosts++;
    } else if (is(p, name_length, "connection") && is(value, length, "close")) {
        h->keep_alive = false;
    }
    return NULL;
}

static const char *read_head(head *h, const char *p, const char *end) {
    h->keep_alive = true;
    const char *wrong = NULL, *line_end = memmem(p, (size_t)(end - p), "\r\n", 2);
    if ((wrong = read_request_line(h, p, line_end))) return wrong;
    for (p = line_end + 2; p < end - 2; p = line_end + 2) {
        line_end = memmem(p, (size_t)(end - p), "\r\n", 2);
        if ((wrong = read_header(h, p, line_end))) return wrong;
    }
    if (h->hosts != 1) return "the Host";
    if (h->has_length && h->chunked) return "both Content-Length and Transfer-Encoding";
    if (h->content_length > BODY_LIMIT) return "a body that is too large";
    return NULL;
}

/* Takes the chunk framing out of a body, in place. Returns how many bytes it had with its framing, 0 when it isn't
 * complete, -1 when it is wrong. */
static ssize_t dechunk(char *body, size_t length, size_t *decoded) {
    char *p = body, *end = body + length, *write = body;
    bool complete = false;
    for (int pass = 0; pass < 2; pass++) { /* first see that it is complete, for in place there is no way back */
        for (p = body, write = body;;) {
            char *line_end = memmem(p, (size_t)(end - p), "\r\n", 2), *after;
            if (!line_end) return end - p > 64 ? -1 : 0;
            unsigned long size = isxdigit((unsigned char)*p) ? strtoul(p, &after, 16) : ULONG_MAX;
            if (size > BODY_LIMIT || (after != line_end && *after != ';')) return -1;
            p = line_end + 2;
            if ((size_t)(end - p) < size + 2) return 0;
            if (memcmp(p + size, "\r\n", 2)) return -1; /* trailers are not for engines */
            if (complete) memmove(write, p, size);
            write += size;
            p += size + 2;
            if (!size) break;
        }
        complete = true;
    }
    *decoded = (size_t)(write - body);
    return p - body;
}

#endif
