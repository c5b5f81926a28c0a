"""A Django application, as small as it can be, whose users start runs of longrun and watch them in a page of its own.

    LONGRUN=http://127.0.0.1:8080/ TOKEN=... python3 django_app.py 8000

The web server of longrun has the same TOKEN, and ALLOWED_ORIGINS=http://127.0.0.1:8000. There are two users, ada and
bob, whose passwords are their names. Look for: start(), and the script of PAGE. All else is as in any application.
"""
import json, os
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.contrib.auth.decorators import login_required
from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

LONGRUN, TOKEN = os.environ['LONGRUN'], os.environ['TOKEN']


@login_required
def page(request):
    return render(request, 'page.html', {'longrun': LONGRUN, 'run': request.session.get('run')})


@login_required
@require_POST
def start(request):
    call = {'method': 'process', 'args': [int(request.POST['steps']), 100], 'callId': request.user.username}
    headers = {'Content-Type': 'application/json', 'Authorization': f'Bearer {TOKEN}'}
    try:
        with urlopen(Request(f'{LONGRUN}tasks', json.dumps(call).encode(), headers), timeout=10) as answer:
            run = json.load(answer)  # {"id", "pid", "key"}: who has the key can see this run, and no other
    except HTTPError as refused:  # 400: wrong arguments; 409: this user's last run goes on; 503: no place is free
        is_its_own = refused.headers.get_content_type() == 'application/json'  # a proxy before longrun says HTML
        errors = json.load(refused)['errors'] if is_its_own else [f'longrun answers with status {refused.code}']
        return JsonResponse({'errors': errors}, status=refused.code)
    except (OSError, HTTPException, ValueError):  # it is down, or what answers in its place is not longrun
        return JsonResponse({'errors': ['longrun does not answer']}, status=502)
    request.session['run'] = run  # the page goes on with it when it is loaded again
    return JsonResponse(run)


PAGE = '''<!doctype html>
<title>Count</title>
<form>{% csrf_token %}<input name="steps" type="number" min="1" value="100"> <button>Start</button></form>
<p><longrun-run server="{{ longrun }}"></longrun-run> <output></output></p>
{{ run|json_script:'run' }}
<script type="module" src="{{ longrun }}longrun-run.js"></script>
<script type="module">
  const [form, shown, problem] = document.querySelectorAll('form, longrun-run, output') // as they stand above
  function show({ id, key }) {
    shown.setAttribute('run', id)
    shown.setAttribute('key', key)
  }
  form.onsubmit = async submit => {
    submit.preventDefault()
    const answer = await fetch('start', { method: 'POST', body: new FormData(form) })
    if (answer.redirected) return location.assign(answer.url) // logged out meanwhile
    const run = await answer.json().catch(() => ({ errors: [`the server answered with status ${answer.status}`] }))
    problem.value = run.errors ?? ''
    if (!run.errors) show(run)
  }
  const run = JSON.parse(document.querySelector('#run').textContent)
  if (run) show(run)
</script>'''

# ---- All else is as in any application

import sys, tempfile

import django  # Debian: apt install python3-django
from django.conf import settings
from django.core.management import call_command
from django.urls import path

LOGIN = '<!doctype html><form method="post">{% csrf_token %}{{ form }}<button>Log in</button></form>'
TEMPLATES = [('django.template.loaders.locmem.Loader', {'page.html': PAGE, 'login.html': LOGIN})]

settings.configure(
    SECRET_KEY=os.urandom(32).hex(), ALLOWED_HOSTS=['127.0.0.1'], LOGIN_URL='/login', LOGIN_REDIRECT_URL='/',
    INSTALLED_APPS=['django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions'],
    MIDDLEWARE=['django.contrib.sessions.middleware.SessionMiddleware', 'django.middleware.csrf.CsrfViewMiddleware',
                'django.contrib.auth.middleware.AuthenticationMiddleware'],
    TEMPLATES=[{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'OPTIONS': {'loaders': TEMPLATES}}],
    DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': f'{tempfile.mkdtemp()}/users.sqlite3'}},
    ROOT_URLCONF=__name__,
)
django.setup()

from django.contrib.auth.models import User  # not before: it is a part of what was set up
from django.contrib.auth.views import LoginView

urlpatterns = [path('', page), path('start', start), path('login', LoginView.as_view(template_name='login.html'))]

if __name__ == '__main__':
    call_command('migrate', verbosity=0)
    for name in ('ada', 'bob'):
        User.objects.create_user(name, password=name)
    call_command('runserver', sys.argv[1], use_reloader=False)
