"""What `-V` says about modules: one table, from which the configure arguments are made.

nginx's tools read that line to know what a server can do. A module that lands gets its True here.
"""

#: Modules that nginx has unless told otherwise, by the name that `--without-NAME` takes.
STANDARD = {
    "http-cache": False,
    "http_charset_module": False,
    "http_gzip_module": False,
    "http_ssi_module": True,
    "http_userid_module": False,
    "http_access_module": True,
    "http_auth_basic_module": True,
    "http_mirror_module": True,
    "http_autoindex_module": False,
    "http_geo_module": False,
    "http_map_module": True,
    "http_split_clients_module": False,
    "http_referer_module": False,
    "http_rewrite_module": True,
    "http_proxy_module": True,
    "http_fastcgi_module": False,
    "http_uwsgi_module": False,
    "http_scgi_module": False,
    "http_grpc_module": False,
    "http_memcached_module": True,
    "http_limit_conn_module": False,
    "http_limit_req_module": False,
    "http_empty_gif_module": False,
    "http_browser_module": False,
    "http_tunnel_module": False,
    "http_upstream_hash_module": True,
    "http_upstream_ip_hash_module": True,
    "http_upstream_least_conn_module": True,
    "http_upstream_least_time_module": True,
    "http_upstream_random_module": True,
    "http_upstream_keepalive_module": True,
    "http_upstream_zone_module": True,
    "http_upstream_sticky_module": True,
}

#: Modules that nginx has only when asked, by the name that `--with-NAME` takes.
OPTIONAL = {
    "http_ssl_module": True,
    "http_v2_module": False,
    "http_v3_module": False,
    "http_realip_module": True,
    "http_addition_module": True,
    "http_sub_module": True,
    "http_dav_module": False,
    "http_gunzip_module": False,
    "http_gzip_static_module": False,
    "http_auth_request_module": True,
    "http_random_index_module": False,
    "http_secure_link_module": False,
    "http_slice_module": True,
    "http_stub_status_module": False,
}


def configure_arguments() -> list[str]:
    """The flags that a build of nginx with headgate's modules would have been configured with."""
    without = [f"--without-{name}" for name, present in STANDARD.items() if not present]
    return without + [f"--with-{name}" for name, present in OPTIONAL.items() if present]
